// Sign in each dialect, with a secret or a private key: go run sign.go URL KEYFILE DIALECT METHOD TARGET [BODY]
//
// KEYFILE is {"key_id", "secret"} as downloaded, or {"key_id", "private_key"} with the PEM of your own Ed25519 or RSA key.
package main

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

type Key struct {
	ID         string `json:"key_id"`
	Secret     string `json:"secret"`
	PrivateKey string `json:"private_key"`
}

type Request struct {
	target  string
	headers map[string]string
	body    string
}

func main() {
	dialects := map[string]func(Key, string, string, string) Request{"mobee": mobee, "binance": binance, "rfc9421": rfc9421}
	if len(os.Args) < 6 || dialects[os.Args[3]] == nil {
		fail("go run sign.go URL KEYFILE mobee|binance|rfc9421 METHOD TARGET [BODY]")
	}
	gate, keyFile, dialect, method, target := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	body := ""
	if len(os.Args) > 6 {
		body = os.Args[6]
	}
	content, err := os.ReadFile(keyFile)
	check(err)
	var key Key
	check(json.Unmarshal(content, &key))
	signed := dialects[dialect](key, method, target, body)

	request, err := http.NewRequest(method, gate+signed.target, strings.NewReader(signed.body))
	check(err)
	for name, value := range signed.headers {
		request.Header.Set(name, value)
	}
	answer, err := http.DefaultClient.Do(request)
	check(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	check(err)
	if answer.StatusCode >= 400 {
		fail(fmt.Sprintf("%d %s", answer.StatusCode, text)) // "detail" says why, and what to do
	}
	fmt.Println(string(text))
}

func mobee(key Key, method, target, body string) Request {
	path, _, _ := strings.Cut(target, "?")
	timestamp := fmt.Sprint(time.Now().UnixMilli())
	message := method + "\n" + path + "\n" + timestamp
	if body != "" {
		message += "\n" + body
	}
	signature := base64.StdEncoding.EncodeToString(sign(key, message))
	return Request{target, map[string]string{"X-API-Key": key.ID, "X-Request-Timestamp": timestamp, "X-Request-Signature": signature}, body}
}

// The parameters are in the query or, as a form, in the body.
func binance(key Key, method, target, body string) Request {
	path, query, _ := strings.Cut(target, "?")
	payload, before := query, ""
	if body != "" {
		payload, before = body, query
	}
	payload = strings.TrimPrefix(fmt.Sprintf("%s&timestamp=%d", payload, time.Now().UnixMilli()), "&")
	raw := sign(key, before+payload)
	signature := hex.EncodeToString(raw)
	if key.PrivateKey != "" {
		signature = url.QueryEscape(base64.StdEncoding.EncodeToString(raw))
	}
	payload += "&signature=" + signature
	headers := map[string]string{"X-MBX-APIKEY": key.ID}
	if body == "" {
		return Request{path + "?" + payload, headers, ""}
	}
	headers["Content-Type"] = "application/x-www-form-urlencoded"
	return Request{target, headers, payload}
}

func rfc9421(key Key, method, target, body string) Request {
	path, query, hasQuery := strings.Cut(target, "?")
	covered := [][2]string{{"@method", method}, {"@path", path}}
	headers := map[string]string{}
	if hasQuery {
		covered = append(covered, [2]string{"@query", "?" + query})
	}
	if body != "" {
		digest := sha256.Sum256([]byte(body))
		headers["Content-Digest"] = "sha-256=:" + base64.StdEncoding.EncodeToString(digest[:]) + ":"
		covered = append(covered, [2]string{"content-digest", headers["Content-Digest"]})
	}
	nonce := make([]byte, 16)
	_, err := rand.Read(nonce)
	check(err)
	names, lines := []string{}, []string{}
	for _, component := range covered {
		names = append(names, `"`+component[0]+`"`)
		lines = append(lines, `"`+component[0]+`": `+component[1])
	}
	parameters := fmt.Sprintf(`(%s);created=%d;keyid="%s";nonce="%x"`, strings.Join(names, " "), time.Now().Unix(), key.ID, nonce)
	lines = append(lines, `"@signature-params": `+parameters)
	signature := base64.StdEncoding.EncodeToString(sign(key, strings.Join(lines, "\n")))
	headers["Signature-Input"], headers["Signature"] = "sig="+parameters, "sig=:"+signature+":"
	return Request{target, headers, body}
}

func sign(key Key, message string) []byte {
	if key.PrivateKey == "" {
		mac := hmac.New(sha256.New, []byte(key.Secret))
		mac.Write([]byte(message))
		return mac.Sum(nil)
	}
	block, _ := pem.Decode([]byte(key.PrivateKey))
	if block == nil {
		fail("private_key is no PEM")
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	check(err)
	if ed, is := private.(ed25519.PrivateKey); is {
		return ed25519.Sign(ed, []byte(message))
	}
	digest := sha256.Sum256([]byte(message))
	signature, err := rsa.SignPKCS1v15(rand.Reader, private.(*rsa.PrivateKey), crypto.SHA256, digest[:])
	check(err)
	return signature
}

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}
