// What a model wrote, as elements. Only text nodes are ever made of it, so that it can't be more than text.

// Blocks of a text: {kind: "code", text, language} for what is between ``` lines, {kind: "text", text} for
// paragraphs. A fence that is still open, as while text streams in, lasts to the end.
export function blocksOf(text) {
  const blocks = [];
  let lines = [];
  let fence = null;
  const close = () => {
    if (fence) {
      blocks.push({kind: "code", text: lines.join("\n"), language: fence.language});
    } else if (lines.some(line => line.trim() !== "")) {
      blocks.push({kind: "text", text: lines.join("\n").trim()});
    }
    lines = [];
  };
  for (const line of text.split("\n")) {
    const mark = /^ {0,3}(`{3,})\s*([^`]*)$/.exec(line);
    if (mark && !fence) {
      close();
      fence = {length: mark[1].length, language: mark[2].trim()};
    } else if (mark && mark[2] === "" && mark[1].length >= fence.length) {
      close();
      fence = null;
    } else if (!fence && line.trim() === "") {
      close();
    } else {
      lines.push(line);
    }
  }
  if (fence && lines.at(-1) === "") lines.pop();  // the next line, of which nothing is there yet
  close();
  return blocks;
}

function elementOf(block) {
  if (block.kind === "code") {
    const pre = document.createElement("pre");
    pre.tabIndex = 0;  // long lines scroll, by keyboard too
    pre.setAttribute("aria-label", block.language ? `Code, ${block.language}` : "Code");
    pre.setAttribute("role", "region");
    const code = document.createElement("code");
    code.textContent = block.text;
    pre.append(code);
    return pre;
  }
  const paragraph = document.createElement("p");
  block.text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/).forEach((piece, i) => {
    if (i % 2 === 0) {  // between the marked pieces
      paragraph.append(piece);
      return;
    }
    const bold = piece[0] === "*";
    const element = document.createElement(bold ? "strong" : "code");
    element.textContent = bold ? piece.slice(2, -2) : piece.slice(1, -1);
    paragraph.append(element);
  });
  return paragraph;
}

// Shows a text in `element`. What was shown before and has not changed stays in place, so that a selection
// survives while text is added.
export function show(element, text) {
  const blocks = blocksOf(text);
  blocks.forEach((block, i) => {
    const old = element.children[i];
    const key = `${block.kind} ${block.language ?? ""}\n${block.text}`;
    if (old && old.shownKey === key) return;
    const made = elementOf(block);
    made.shownKey = key;
    if (old) old.replaceWith(made); else element.append(made);
  });
  while (element.children.length > blocks.length) element.lastChild.remove();
}
