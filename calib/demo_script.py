"""The script of the demo page. Whatever the server says is put in as text, never as HTML."""

from __future__ import annotations

from typing import Final

SCRIPT: Final = """
"use strict";
const facts = JSON.parse(document.getElementById("facts").textContent);
const $ = (id) => document.getElementById(id);
const KEPT_ANSWERS = 12;
let uploaded = null;
let suggested = "";

function make(tag, words, kind) {
  const node = document.createElement(tag);
  if (words !== undefined) node.textContent = words;
  if (kind) node.className = kind;
  return node;
}

function say(words, bad) {
  $("status").textContent = words;
  $("status").className = bad ? "bad" : "";
}

function fillClasses() {
  const before = $("intent").value;
  const names = facts.profiles[Number($("profile").value)].intents;
  const options = [["", "automatic: the profile's router"], ...names.map((name) => [name, name])];
  $("intent").replaceChildren(...options.map(([value, words]) => {
    const option = make("option", words);
    option.value = value;
    return option;
  }));
  $("intent").value = names.includes(before) ? before : "";
}

function chosen() {
  const radio = document.querySelector("input[name=picture]:checked");
  return radio ? radio.value : null;
}

function suggest() {
  const picture = chosen();
  if (picture === null) return;
  const prompt = facts.examples[Number(picture.split(":")[1])].prompt;
  if ($("prompt").value === suggested) $("prompt").value = suggested = prompt;
}

async function send(path, kind, body) {
  const reply = await fetch(path, {method: "POST", headers: {"Content-Type": kind}, body});
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error);
  return found;
}

async function upload() {
  const file = $("file").files[0];
  if (!file) return;
  uploaded = null;
  $("preview").hidden = true;
  if (file.size > facts.max_upload) {
    say(`The picture has ${file.size} bytes, ${facts.max_upload} are allowed.`, true);
    return;
  }
  say("Sending the picture...");
  try {
    uploaded = (await send("/upload", "application/octet-stream", file)).picture;
    for (const radio of document.querySelectorAll("input[name=picture]")) radio.checked = false;
    $("preview").src = URL.createObjectURL(file);
    $("preview").hidden = false;
    if ($("prompt").value === suggested) $("prompt").value = suggested = "";
    say("Your picture is chosen.");
  } catch (error) {
    say(error.message, true);
  }
}

function seconds(value) {
  return value === null ? "" : `${value.toFixed(2)} s`;
}

function answerBox(title, words, note) {
  const box = make("div");
  box.append(make("span", title, "soft"), make("b", words === "" ? "(nothing)" : words), make("span", note, "soft"));
  return box;
}

function facet(list, name, value) {
  list.append(make("dt", name), make("dd", value));
}

function drawing(stage) {
  const figure = make("figure");
  const image = make("img");
  image.src = stage.drawing;
  image.alt = stage.caption;
  figure.append(image, make("figcaption", stage.caption));
  return figure;
}

function legend() {
  const list = make("ul", undefined, "legend");
  for (const [kind, words] of [["pivot", "kept: attention pivot"], ["completion", "kept: completion"],
                               ["dropped", "dropped"]]) {
    const item = make("li");
    item.append(make("i", undefined, kind), document.createTextNode(words));
    list.append(item);
  }
  return list;
}

function show(found) {
  const card = make("article");
  card.append(make("h2", found.prompt));
  const answers = make("div", undefined, "answers");
  const kept = found.stages.map((stage) => stage.kept);
  answers.append(answerBox("Pruned", found.text, seconds(found.seconds)));
  if (found.unpruned !== null) {
    const same = found.unpruned === found.text ? ", the same answer" : ", another answer";
    answers.append(answerBox("All tokens", found.unpruned, seconds(found.seconds_unpruned) + same));
  }
  const list = make("dl");
  const sure = found.label_source === "given" ? "chosen by you" :
    `${found.label_source}, confidence ${found.confidence.toFixed(2)}`;
  facet(list, "Class", `${found.intent} (${sure})`);
  facet(list, "Tokens", [found.visual_tokens, ...kept].join(" \\u2192 "));
  facet(list, "Budget", found.profile);
  facet(list, "Vision layers", found.layers.join(", "));
  facet(list, "Pivot share", String(found.rho));
  const stages = make("div", undefined, "stages");
  stages.append(...found.stages.map(drawing));
  card.append(answers, list, stages);
  if (found.stages.length) card.append(legend());
  $("empty").hidden = true;
  $("answers").prepend(card);
  const cards = document.querySelectorAll("article");
  if (cards.length > KEPT_ANSWERS) cards[cards.length - 1].remove();
  if (!matchMedia("(min-width:60rem)").matches) card.scrollIntoView();
}

async function ask(event) {
  event.preventDefault();
  if ($("ask").disabled) return;
  const picture = chosen() ?? uploaded;
  if (picture === null) {
    say("Choose a picture first.", true);
    return;
  }
  const held = document.activeElement;
  $("ask").disabled = true;
  say("Answering...");
  try {
    show(await send("/ask", "application/json", JSON.stringify({
      picture,
      prompt: $("prompt").value,
      profile: Number($("profile").value),
      intent: $("intent").value || null,
      compare: $("compare").checked,
    })));
    say("Answered.");
  } catch (error) {
    say(error.message, true);
  } finally {
    $("ask").disabled = false;
    if (held === $("ask") && [null, document.body, held].includes(document.activeElement)) held.focus();
  }
}

function typed(event) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("form").requestSubmit();
}

$("profile").addEventListener("change", fillClasses);
$("file").addEventListener("change", upload);
$("form").addEventListener("submit", ask);
$("prompt").addEventListener("keydown", typed);
for (const radio of document.querySelectorAll("input[name=picture]")) {
  radio.addEventListener("change", () => {
    $("file").value = "";
    $("preview").hidden = true;
    suggest();
  });
}
fillClasses();
suggest();
"""
