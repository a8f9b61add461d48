/**
 * Read signed data into a spreadsheet: =GERBANG("/v1/wallets")
 *
 * Extensions > Apps Script, paste this file, then Project Settings > Script Properties: GERBANG_URL, and GERBANG_KEY with the
 * content of the key file offered for download when the key is created.
* Use a key with only the scope read: anyone who can edit the spreadsheet's script can read its properties. Google's addresses change, so
 * the key cannot have an IP allowlist.
 */

/**
 * Rows of a signed GET: one row for each element of the answer's list, with a first row of names.
 *
 * @param {string} target path, with a query if necessary, e.g. "/v1/orders?status=open"
 * @return {Array<Array<string>>} a table
 * @customfunction
 */
function GERBANG(target) {
  return gerbangTable_(gerbangCall_("GET", target));
}

/** Sign and send one request; body is an object or nothing. Returns the parsed answer, throws the gate's reason. */
function gerbangCall_(method, target, body) {
  var properties = PropertiesService.getScriptProperties();
  var key = JSON.parse(properties.getProperty("GERBANG_KEY"));
  if (!key.secret) throw new Error("GERBANG_KEY has no secret: this script needs a key of HMAC-SHA256");
  var text = body === undefined ? "" : JSON.stringify(body);
  var timestamp = String(Date.now());
  var parts = [method, target.split("?")[0], timestamp];
  if (text) parts.push(text);
  var mac = Utilities.computeHmacSha256Signature(parts.join("\n"), key.secret, Utilities.Charset.UTF_8);
  var options = {
    method: method.toLowerCase(),
    headers: {
      "X-API-Key": key.key_id,
      "X-Request-Timestamp": timestamp,
      "X-Request-Signature": Utilities.base64Encode(mac),
    },
    muteHttpExceptions: true,
  };
  if (text) {
    options.contentType = "application/json";
    options.payload = text;
  }
  var answer = UrlFetchApp.fetch(properties.getProperty("GERBANG_URL") + target, options);
  var content = JSON.parse(answer.getContentText());
  if (answer.getResponseCode() >= 400) {
    throw new Error(answer.getResponseCode() + " " + (content.code || "") + ": " + (content.detail || answer.getContentText()));
  }
  return content;
}

/** The first list in an answer as rows; an answer without one is a single row. */
function gerbangTable_(content) {
  var lists = Object.keys(content).filter(function (name) { return Array.isArray(content[name]); });
  var rows = lists.length ? content[lists[0]] : [content];
  if (!rows.length) return [["nothing"]];
  var names = Object.keys(rows[0]);
  return [names].concat(rows.map(function (row) { return names.map(function (name) { return row[name] === null ? "" : row[name]; }); }));
}
