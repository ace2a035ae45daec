"""Answers to the exercises of chapter 1."""

RIGHT = {
    "1.1": [[441, 441, 490, 1764]],
    "1.2": [lambda log_likelihood, k: -log_likelihood.log_softmax(1).gather(1, k[:, None]).mean()],
    "1.3": [[-3.05, 0.2, -0.5]],
}
WRONG = {
    "1.1": [[441, 882, 490, 1764], [441, 441, 882, 1764], [305.7, 305.7, 339.6, 1222.7], 441],
    "1.2": [
        lambda log_likelihood, k: log_likelihood.log_softmax(1).gather(1, k[:, None]).mean(),  # the sign
        lambda log_likelihood, k: log_likelihood.logsumexp(1).mean(),
        lambda log_likelihood, k: -log_likelihood.log_softmax(1).gather(1, k[:, None])[:, 0],  # not averaged
        lambda log_likelihood, k: None,
    ],
    "1.3": [[-3.0, 0.2, -0.5], [-3.05, -0.2, -0.5], [-3.05, 0.2, -0.4], 3.0],
}
