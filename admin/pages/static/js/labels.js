// Labels as the service stores them, as somebody types them again, and as parts of a file's name.

/** As admin/labels.py stores it: composed, runs of spaces of any kind as one, none around it. */
export function stored(label) {
  return label.normalize("NFC").replace(/\p{Zs}+/gu, " ").trim();
}

const TYPED = [
  [/\ufe0f/g, ""], // the emoji form of a symbol, which some keyboards write and others do not
  [/[\u2018\u2019\u201a\u201b\u02bc\u2032]/g, "'"], // phones put these in place of ' " and - while one types
  [/[\u201c\u201d\u201e\u201f\u2033]/g, '"'],
  [/[\u2010-\u2015\u2212]/g, "-"],
];

/** Whether somebody who typed this meant the label: what looks the same, or is the same key on another keyboard, is the same. */
export function meant(typed, label) {
  const plain = (text) => TYPED.reduce((soFar, [pattern, by]) => soFar.replace(pattern, by), stored(text)).normalize("NFKC");
  return stored(plain(typed)) === stored(plain(label));
}

/** The name of the key's file: one that no program takes for an option. */
export function fileName(label) {
  const words = label.replace(/[^A-Za-z0-9_]+/g, "-").slice(0, 40).replace(/^-+|-+$/g, "");
  return `${words || "api"}-key.json`;
}
