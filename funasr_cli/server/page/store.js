// What this browser keeps: recordings with their transcripts and corrections, and the settings.

const NAME = "funasr";
const TABLES = ["recordings", "audio"]; // entries by id; and the recordings themselves, which may be large

const opened = new Promise((resolve, reject) => {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => {
    request.result.createObjectStore("recordings", { keyPath: "id", autoIncrement: true });
    request.result.createObjectStore("audio");
  };
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});
opened.catch(() => {}); // each use says so

/** Run some requests in one transaction, and return the result of the last. */
async function transact(mode, run) {
  const transaction = (await opened).transaction(TABLES, mode);
  const request = run(...TABLES.map((name) => transaction.objectStore(name)));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error ?? request.error);
  });
}

/** Return all entries, the newest first. */
export const entries = async () =>
  (await transact("readonly", (recordings) => recordings.getAll())).sort((one, other) => other.id - one.id);

/** Keep an entry, and return its id. */
export const keep = (entry) => transact("readwrite", (recordings) => recordings.put(entry));

/** Keep the recording of an entry; return whether there was room. */
export const keepAudio = (id, blob) =>
  transact("readwrite", (_, audio) => audio.put(blob, id)).then(
    () => true,
    () => false,
  );

/** Return the recording of an entry; undefined if it is not kept. */
export const audioOf = (id) => transact("readonly", (_, audio) => audio.get(id));

/** Forget an entry and its recording. */
export const forget = (id) =>
  transact("readwrite", (recordings, audio) => {
    audio.delete(id);
    return recordings.delete(id);
  });

/** Return a setting of this browser. */
export function setting(name, otherwise) {
  try {
    return localStorage.getItem(`funasr.${name}`) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** Keep a setting of this browser. */
export function keepSetting(name, value) {
  try {
    localStorage.setItem(`funasr.${name}`, value);
  } catch {
    // the browser keeps nothing
  }
}
