"""Answers to the exercises of chapter 3."""

RIGHT = {
    "3.1": [lambda beta: (1 / (1 + beta), beta / (1 + beta))],
    "3.2": [[[1.25, 1.25], [0.25, 1], [1, 0.25], [0, 1]]],
    "3.3": [[0.25, 1]],
}
WRONG = {
    "3.1": [lambda beta: (beta / (1 + beta), 1 / (1 + beta)), lambda beta: (1 - beta, beta), lambda beta: 0.8],
    "3.2": [
        [[1, 1], [0.25, 1], [1, 0.25], [0, 1]],
        [[1.25, 1.25], [0.25, 1], [0.25, 1], [0, 1]],
        [[1.25, 1.25], [1, 0.25], [1, 0.25], [0, 1]],  # the order of the arguments taken for the roles
        [[1.25, 1.25], [0.25, 1], [1, 0.25], [0.25, 1]],
    ],
    "3.3": [[4, 1], [0.25, 0.25], [1, 0.25], 0.25],
}
