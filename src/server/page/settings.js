// Settings of requests, kept by the browser, and the dialog that changes them.

const kNumbers = ["temperature", "top_p", "max_tokens", "seed"];
const kStored = "atom.settings";  // in localStorage
const kStoredKey = "atom.key";  // in sessionStorage: a key should not outlive the tab

const element = id => document.getElementById(id);

function stored() {
  try {
    return JSON.parse(localStorage.getItem(kStored)) ?? {};
  } catch {
    return {};
  }
}

export function apiKey() {
  return sessionStorage.getItem(kStoredKey) ?? "";
}

export function systemMessage() {
  return stored().system ?? "";
}

// The fields of a request that the user has set.
export function requestOptions() {
  const settings = stored();
  const set = kNumbers.filter(name => Number.isFinite(settings[name]));
  return Object.fromEntries(set.map(name => [name, settings[name]]));
}

export class SettingsDialog {
  #dialog = element("settings");
  #form = element("settings-form");

  // Calls onSaved({keyChanged}) when the user has changed them.
  constructor(onSaved) {
    element("open-settings").addEventListener("click", () => this.open());
    element("cancel-settings").addEventListener("click", () => this.#dialog.close());
    element("reset-settings").addEventListener("click", () => {
      for (const field of this.#form.querySelectorAll("input, textarea")) field.value = "";
      this.#form.elements.system.focus();
    });
    this.#form.addEventListener("submit", () => onSaved(this.#save()));
  }

  // `problem`: why a key is asked for; the dialog then starts there.
  open(problem = "") {
    if (this.#dialog.open) return;
    const settings = stored();
    const fields = this.#form.elements;
    fields.system.value = settings.system ?? "";
    for (const name of kNumbers) fields[name].value = settings[name] ?? "";
    fields.key.value = apiKey();
    element("key-wanted").hidden = problem === "";
    element("key-wanted").textContent = problem;
    this.#dialog.showModal();
    fields[problem ? "key" : "system"].focus();
  }

  #save() {
    const fields = this.#form.elements;
    const settings = {};
    if (fields.system.value.trim()) settings.system = fields.system.value;
    for (const name of kNumbers) {
      if (fields[name].value !== "") settings[name] = fields[name].valueAsNumber;
    }
    localStorage.setItem(kStored, JSON.stringify(settings));
    const key = fields.key.value.trim();
    const keyChanged = key !== apiKey();
    sessionStorage.setItem(kStoredKey, key);
    return {keyChanged};
  }
}
