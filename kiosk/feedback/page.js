"use strict";

// The kiosk beats every 2 s; so long a silence means that it hangs.
const SILENCE_MS = 5000;
const RETRY_MS = 1000;
const LEAST_FIT = 0.4;
const LOST = { kind: "lost", headline: "Kiosk is not running", detail: "use another way", person: null };

const element = (id) => document.getElementById(id);
let onScreen = LOST;
let files = null;
let holding = 0;
let listening = 0;

function fit() {
  const words = element("words");
  const room = words.parentElement;
  const tooBig = () => words.scrollWidth > words.clientWidth || room.scrollHeight > room.clientHeight;
  for (let size = 1; size >= LEAST_FIT; size -= 0.05) {
    words.style.setProperty("--fit", size.toFixed(2));
    if (!tooBig()) {
      return;
    }
  }
}

function show(state) {
  clearTimeout(holding);
  onScreen = state;
  element("headline").textContent = state.headline;
  element("person").textContent = state.person ?? "";
  element("detail").textContent = state.detail;
  document.body.dataset.kind = state.kind;
  fit();
  if (state.hold_ms != null) {
    holding = setTimeout(show, state.hold_ms, state.rest);
  }
}

function greet(hello) {
  if (files !== null && files !== hello.page) {
    // The kiosk came back with another version of this page.
    location.reload();
  }
  files = hello.page;
  element("label").textContent = hello.label;
}

function connect() {
  const source = new EventSource("events");
  let heard = false;

  function lose() {
    source.close();
    clearTimeout(listening);
    if (heard) {
      // A stream that worked may only have been replaced by a newer screen: ask once, at once.
      connect();
      return;
    }
    if (onScreen !== LOST) {
      show(LOST);
    }
    setTimeout(connect, RETRY_MS);
  }

  function listen() {
    clearTimeout(listening);
    listening = setTimeout(() => { heard = false; lose(); }, SILENCE_MS);
  }

  function hear(event, act) {
    source.addEventListener(event, (message) => {
      heard = true;
      listen();
      act(JSON.parse(message.data));
    });
  }

  hear("hello", greet);
  hear("notice", show);
  hear("beat", () => {});
  source.addEventListener("error", lose);
  listen();
}

function tick() {
  const now = new Date();
  element("clock").textContent = now.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  setTimeout(tick, 1000 - now.getMilliseconds());
}

window.addEventListener("resize", fit);
tick();
connect();
