// Ask for the server's key.

import { keepKey, onKeyWanted } from "./server.js";

const [dialog, form, field, wrong] = ["key-dialog", "key-form", "key", "key-wrong"].map((id) =>
  document.getElementById(id),
);
let asking = null; // several requests may wait for the same key

onKeyWanted((given) => {
  asking ??= new Promise((resolve) => {
    wrong.textContent = given ? "This key is wrong." : "";
    field.value = "";
    dialog.showModal();
    dialog.onclose = () => asking && !dialog.open && dialog.showModal(); // nothing works without a key
    form.onsubmit = () => {
      keepKey(field.value.trim());
      asking = null;
      resolve();
    };
  });
  return asking;
});
