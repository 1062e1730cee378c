"use strict";

// The token is the part of the link behind the #, which no browser sends to any server.
const token = location.hash.slice(1) || sessionStorage.getItem("token") || "";
sessionStorage.setItem("token", token);

const $ = (id) => document.getElementById(id);

/** Makes an element with properties, and puts children into it. */
function make(tag, properties = {}, ...children) {
  const { data, role, label, ...plain } = properties;
  const element = Object.assign(document.createElement(tag), plain);
  Object.assign(element.dataset, data ?? {});
  if (role) element.setAttribute("role", role);
  if (label) element.setAttribute("aria-label", label);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const clock = (milliseconds) =>
  new Date(milliseconds).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** What is known; made anew whenever the stream begins again. */
const known = { about: null, people: [], chats: new Map(), vitals: null };
let shown = sessionStorage.getItem("who") || "alice";
const drafts = new Map();
const lastSaid = new Map();

// Talking to the playground.

async function call(path, body, kind = "application/json") {
  const headers = { "x-kai-token": token };
  if (body !== undefined) headers["content-type"] = kind;
  try {
    const method = body === undefined ? "GET" : "POST";
    const answer = await fetch(`api/${path}`, { method, headers, body, cache: "no-store" });
    if (!answer.ok) toast((await answer.text()) || `${path}: ${answer.status}`);
    return answer.ok ? answer : null;
  } catch {
    toast("The playground does not answer.");
    return null;
  }
}

const post = (path, body) => call(path, JSON.stringify(body));

let toastTimer;
function toast(text) {
  const box = $("toast");
  box.textContent = text;
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { box.hidden = true; }, 5000);
}

function linkState(text, kind) {
  const pill = $("link-state");
  pill.textContent = text;
  pill.className = `pill ${kind}`;
}

/** Reads the stream of JSON lines, for ever. */
async function follow() {
  for (;;) {
    const silence = new AbortController();
    let timer;
    const heard = () => { clearTimeout(timer); timer = setTimeout(() => silence.abort(), 8000); };
    try {
      heard();
      const answer = await fetch("api/news", { headers: { "x-kai-token": token }, cache: "no-store", signal: silence.signal });
      if (answer.status === 403) {
        linkState("open the link that the playground printed", "bad");
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      known.chats = new Map();
      linkState("live", "good");
      // What was there before does not come in one by one.
      let settled = false;
      setTimeout(() => { settled = true; }, 400);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        heard();
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        lines.forEach((line) => take(JSON.parse(line)));
        renderMessages(!settled);
      }
    } catch { /* It ended, or fell silent: again. */ }
    clearTimeout(timer);
    linkState("the playground is gone; waiting for it", "bad");
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

function take(event) {
  switch (event.kind) {
    case "about": known.about = event; renderAbout(); break;
    case "message": takeMessage(event); break;
    case "typing": chat(event.who).typing = event.on; break;
    case "vitals": takeVitals(event); break;
  }
}

// The chats.

function chat(who) {
  if (!known.chats.has(who)) {
    known.chats.set(who, { messages: new Map(), typing: false, unread: 0, elements: new Map() });
  }
  return known.chats.get(who);
}

function takeMessage(message) {
  const its = chat(message.who);
  const isNew = !its.messages.has(message.id);
  its.messages.set(message.id, message);
  if (isNew && !message.own && message.who !== shown) {
    its.unread += 1;
    renderTabs();
  }
}

function renderAbout() {
  const about = known.about;
  known.people = about.people;
  $("about").textContent = about.embedded
    ? "The agent is a small one that runs every message as a shell command."
    : `The agent is ${about.agent}.`;
  const open = $("open");
  open.hidden = about.not_separated.length === 0;
  open.replaceChildren(
    make("strong", { textContent: "Not started as root: less than an installed kai." }),
    make("ul", {}, ...about.not_separated.map((text) => make("li", { textContent: text }))),
  );
  renderTabs();
  renderSuggestions();
  show(shown);
}

function renderTabs() {
  const tabs = document.querySelector(".tabs");
  const focused = tabs.contains(document.activeElement);
  tabs.replaceChildren(...known.people.map((person) => {
    const selected = person.name === shown;
    const tab = make("button", { type: "button", role: "tab", id: `tab-${person.name}`, data: { who: person.name } },
      make("span", { className: `face ${person.name}`, textContent: person.first_name[0] }),
      make("span", { className: "name", textContent: person.first_name }),
      make("span", { className: "account", textContent: person.account ?? "not in users.yaml" }),
      make("span", { className: "unread", textContent: String(chat(person.name).unread || "") }));
    tab.setAttribute("aria-selected", String(selected));
    tab.tabIndex = selected ? 0 : -1;
    tab.onclick = () => show(person.name);
    return tab;
  }));
  if (focused) $(`tab-${shown}`)?.focus();
}

function show(who) {
  if (who !== shown) {
    drafts.set(shown, $("text").value);
    $("text").value = drafts.get(who) ?? "";
    shown = who;
    sessionStorage.setItem("who", who);
  }
  chat(who).unread = 0;
  const person = known.people.find((one) => one.name === who);
  $("text").placeholder = `Write to kai as ${person?.first_name ?? who}`;
  fit();
  renderTabs();
  renderSuggestions();
  renderMessages(true);
}

/** Brings the list up to date, element by element, and stays at its end if it was there. */
function renderMessages(fresh = false) {
  const list = $("messages");
  const its = chat(shown);
  const atEnd = fresh || list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  if (fresh) its.elements.clear();
  const wanted = [...its.messages.values()].sort((a, b) => a.id - b.id).map((message) => {
    const before = its.elements.get(message.id);
    if (before?.shownAs === message) return before;
    const bubble = renderMessage(message);
    bubble.shownAs = message;
    if (!before && !fresh) bubble.classList.add("new");
    its.elements.set(message.id, bubble);
    return bubble;
  });
  if (its.typing) {
    its.typingElement ??= make("div", { className: "typing", label: "kai is typing" }, make("i"), make("i"), make("i"));
    wanted.push(its.typingElement);
  }
  if (shown === "stranger") {
    its.note ??= make("p", { className: "note", textContent:
      "Not in users.yaml: whatever a stranger writes is dropped without an answer. The admin sees the number with kai-broker strangers." });
    wanted.unshift(its.note);
  } else if (wanted.length === 0) {
    wanted.push(make("p", { className: "empty", textContent: "Nothing here yet. Try one of the commands below, or write your own." }));
  }
  const same = wanted.length === list.children.length && wanted.every((element, index) => list.children[index] === element);
  if (!same) list.replaceChildren(...wanted);
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function renderMessage(message) {
  const words = make("div", { className: "words" });
  // Escaped by the emulator, which alone adds tags; the page's policy lets nothing in it run.
  words.innerHTML = message.deleted ? "deleted" : message.html;
  for (const link of words.querySelectorAll("a")) link.target = "_blank";
  for (const block of words.querySelectorAll("pre, blockquote")) trimAround(block);
  const meta = make("div", { className: "meta" },
    message.edits > 0 ? make("span", { textContent: "edited", title: `${message.edits} edits` }) : null,
    make("time", { textContent: clock(message.sent) }));
  return make("div", { className: `bubble${message.own ? " own" : ""}${message.deleted ? " deleted" : ""}` },
    message.file && !message.deleted ? renderFile(message.file) : null,
    words.innerHTML ? words : null,
    message.deleted ? null : renderKeys(message),
    meta);
}

/** A block begins a line by itself: the line ends around it would show as empty lines. */
function trimAround(block) {
  const { previousSibling: before, nextSibling: after } = block;
  if (before?.nodeType === Node.TEXT_NODE) before.data = before.data.replace(/\n$/, "");
  if (after?.nodeType === Node.TEXT_NODE) after.data = after.data.replace(/^\n/, "");
}

function renderKeys(message) {
  if (message.buttons.length === 0) return null;
  return make("div", { className: "keys" }, ...message.buttons.map((row) => make("div", {}, ...row.map((button) => {
    if (button.url) return make("a", { href: button.url, target: "_blank", rel: "noreferrer noopener", textContent: button.label });
    const key = make("button", { type: "button", textContent: button.label });
    key.onclick = () => post("press", { who: message.who, message: message.id, label: button.label });
    return key;
  }))));
}

function renderFile(file) {
  const box = make("button", { type: "button", className: "attached", title: "Save" },
    make("span", { textContent: file.name }),
    make("small", { textContent: size(file.size) }));
  const fetched = async () => {
    const answer = await call(`file/${encodeURIComponent(file.id)}`);
    return answer && URL.createObjectURL(await answer.blob());
  };
  box.onclick = async () => {
    const address = await fetched();
    if (address) make("a", { href: address, download: file.name }).click();
  };
  if (file.photo) fetched().then((address) => address && box.replaceChildren(make("img", { src: address, alt: file.name })));
  return box;
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
  return `${unit === 0 ? bytes : bytes.toFixed(1)} ${units[unit]}`;
}

// Writing.

function suggestions() {
  const about = known.about;
  if (!about) return [];
  if (shown === "stranger") return ["/start", "hello?", "id"].map((text) => ({ label: text, text }));
  const broker = known.vitals?.daemons?.find((daemon) => daemon.name === "broker")?.pid ?? 1;
  const other = shown === "alice" ? "bob" : "alice";
  const worker = known.vitals?.status?.users?.find((user) => user.name === other)?.worker?.pid;
  const command = (label, text = label) => ({ label, text });
  return [
    command("/start"),
    command("id"),
    command("cat bob's secret", `cat ${about.bob_home}/secret.txt`),
    command("cat /etc/shadow"),
    command("ps aux"),
    command("ls kai's state", `ls -l ${about.state}`),
    command("ls kai's sockets", `ls -l ${about.run} ${about.run}/*`),
    command("read the broker's environ", `cat /proc/${broker}/environ`),
    command(worker ? `kill ${other}'s worker` : "kill the broker", `kill -9 ${worker ?? broker}`),
    command("six slow lines", "for i in 1 2 3 4 5 6; do echo line $i; sleep 1; done"),
    command("/status"),
    command("/stop"),
    command("/new"),
  ];
}

function renderSuggestions() {
  $("suggestions").replaceChildren(...suggestions().map(({ label, text }) => {
    const button = make("button", { type: "button", textContent: label, title: text });
    button.onclick = () => { say(text); $("text").focus(); };
    return button;
  }));
}

function say(text) {
  lastSaid.set(shown, text);
  post("say", { who: shown, text });
}

function fit() {
  const text = $("text");
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
}

$("composer").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  fit();
  say(text);
};

$("text").oninput = fit;
$("text").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  } else if (event.key === "ArrowUp" && !$("text").value && lastSaid.has(shown)) {
    event.preventDefault();
    $("text").value = lastSaid.get(shown);
    fit();
  }
};

function sendFiles(files) {
  for (const file of files) {
    const query = new URLSearchParams({ who: shown, name: file.name });
    call(`send-file?${query}`, file, "application/octet-stream");
  }
}
$("attach").onclick = () => $("file").click();
$("file").onchange = () => { sendFiles($("file").files); $("file").value = ""; };

const chatBox = document.querySelector(".chat");
chatBox.ondragover = (event) => { event.preventDefault(); chatBox.classList.add("dropping"); };
chatBox.ondragleave = () => chatBox.classList.remove("dropping");
chatBox.ondrop = (event) => {
  event.preventDefault();
  chatBox.classList.remove("dropping");
  sendFiles(event.dataTransfer.files);
};

document.querySelector(".tabs").onkeydown = (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const names = known.people.map((person) => person.name);
  show(names[(names.indexOf(shown) + step + names.length) % names.length]);
  $(`tab-${shown}`)?.focus();
};

document.addEventListener("keydown", (event) => {
  const person = event.altKey && known.people[Number(event.key) - 1];
  if (person) {
    event.preventDefault();
    show(person.name);
    $("text").focus();
  }
});

// The processes.

function happened(text) {
  const list = $("happenings");
  list.prepend(make("li", {}, make("time", { textContent: clock(Date.now()) }), make("span", { textContent: text })));
  while (list.children.length > 50) list.lastChild.remove();
}

async function kill(target, described) {
  happened(`kill -9 of ${described}`);
  await post("kill", { target });
}

/** Says what became of processes that were there a moment ago. */
function compare(before, now) {
  const processes = (vitals) => new Map([
    ...(vitals?.daemons ?? []).map((daemon) => [daemon.name, daemon.pid]),
    ...(vitals?.status?.users ?? []).flatMap((user) => [
      [`${user.name}'s worker`, user.worker?.pid ?? null],
      [`${user.name}'s agent`, user.worker?.agent_pid ?? null],
    ]),
  ]);
  const old = processes(before);
  for (const [name, pid] of processes(now)) {
    const last = lastPid.get(name);
    if (pid && last && pid !== last) happened(`${name} is back, as process ${pid}`);
    else if (pid && !last && old.size > 0) happened(`${name} began, as process ${pid}`);
    else if (!pid && old.get(name)) happened(`${name} is gone`);
    if (pid) lastPid.set(name, pid);
  }
}
const lastPid = new Map();

function takeVitals(vitals) {
  compare(known.vitals, vitals);
  const before = known.vitals;
  known.vitals = vitals;
  renderDaemons(before);
  renderStatus(vitals);
  // The numbers in them change seldom, and a list that is used must not move.
  if (!$("suggestions").matches(":hover, :focus-within")) renderSuggestions();
}

function renderDaemons(before) {
  $("daemons").replaceChildren(...known.vitals.daemons.map((daemon) => {
    const last = before?.daemons.find((one) => one.name === daemon.name)?.pid;
    const state = daemon.pid === null ? " down" : before && last !== daemon.pid ? " fresh" : "";
    return make("div", { className: `daemon${state}` },
      make("b", { textContent: daemon.name }),
      make("span", { textContent: daemon.pid === null ? "down" : `pid ${daemon.pid}` }),
      killButton(daemon.name, `the ${daemon.name}`, daemon.pid));
  }));
}

function killButton(target, described, pid) {
  const button = make("button", { type: "button", className: "kill", textContent: "kill", title: `kill -9 ${pid ?? ""}`, disabled: !pid, label: `Kill ${target}` });
  button.onclick = () => kill(target, described);
  return button;
}

function span(seconds) {
  if (seconds === null || seconds === undefined) return null;
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

const none = () => make("span", { className: "none", textContent: "–" });

/** A row for each thing that is known of a user's worker. */
const ROWS = [
  ["worker", (worker, user) => worker && [String(worker.pid), killButton(`worker ${user.name}`, `${user.name}'s worker`, worker.pid)]],
  ["agent", (worker, user) => worker?.agent_pid && [String(worker.agent_pid), killButton(`agent ${user.name}`, `${user.name}'s agent`, worker.agent_pid)]],
  ["state", (worker) => worker && [make("span", { className: `state ${worker.state}`, textContent: worker.state === "turn" ? "in a turn" : worker.state }), worker.attached ? "" : ", detached"]],
  ["session", (worker) => worker?.session && [make("span", { textContent: worker.session.slice(0, 8), title: worker.session }), ` · ${worker.turns} ${worker.turns === 1 ? "turn" : "turns"}`]],
  ["up, idle", (worker) => worker && [`${span(worker.uptime_seconds)}, ${span(worker.idle_seconds) ?? "–"}`]],
  ["memory, cpu", (worker) => worker && [`${size(worker.memory_kib * 1024)}, ${worker.cpu_seconds.toFixed(2)} s`]],
  ["processes", (worker) => worker && [String(worker.processes)]],
];

function renderStatus(vitals) {
  const problem = $("problem");
  problem.hidden = !vitals.problem;
  problem.textContent = vitals.problem ?? "";
  const users = vitals.status?.users ?? [];
  if (users.length > 0) {
    const head = make("tr", {}, make("th"), ...users.map((user) =>
      make("th", { textContent: user.name }, make("small", { textContent: `${user.account} · uid ${user.uid}` }))));
    const rows = ROWS.map(([name, cell], index) => make("tr", { className: index === ROWS.length - 1 ? "last" : "" },
      make("th", { textContent: name }),
      ...users.map((user) => make("td", {}, ...(cell(user.worker, user) || [none()])))));
    $("status").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows, ...layerRows(users)));
  }
  const strangers = vitals.strangers ?? [];
  $("strangers").hidden = strangers.length === 0;
  $("strangers").textContent = `Turned away: ${strangers.map((one) => `${one.id} (${one.times}×)`).join(", ")}`;
  const findings = vitals.status?.findings ?? [];
  $("findings").hidden = findings.length === 0;
  $("findings").replaceChildren(...findings.map((text) => make("li", { textContent: text })));
}

const NAMESPACES = new Set(["pid", "mnt", "ipc", "uts", "cgroup", "net", "user", "time"]);

const STANDINGS = { on: "holds", off: "not by configuration", missing: "missing" };

function layerRows(users) {
  const names = [...new Set(users.flatMap((user) => (user.worker?.layers ?? []).map((layer) => layer.name)))];
  return names.map((name, index) => make("tr", { className: index === 0 ? "first" : "" },
    make("th", { textContent: NAMESPACES.has(name) ? `${name} namespace` : name }),
    ...users.map((user) => {
      const layer = user.worker?.layers?.find((one) => one.name === name);
      if (!layer) return make("td", {}, none());
      const own = layer.witness === "worker";
      return make("td", { title: `${STANDINGS[layer.standing] ?? layer.standing}${own ? ", as the worker says" : ", as /proc says"}` },
        make("span", { className: `mark ${layer.standing}`, role: "img", label: STANDINGS[layer.standing] ?? layer.standing }),
        layer.detail || (layer.standing === "on" ? "" : STANDINGS[layer.standing] ?? layer.standing),
        own ? make("span", { className: "word", textContent: " †" }) : null);
    })));
}

follow();
