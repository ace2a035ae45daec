// maths.py runs this. A line in is a formula, a line out what KaTeX made of it: HTML with MathML, or what is wrong.
const katex = require("katex");

require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { tex, displayMode } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ html: katex.renderToString(tex, { displayMode, strict: "error" }) }));
  } catch ({ message }) {
    console.log(JSON.stringify({ fault: message }));
  }
});
