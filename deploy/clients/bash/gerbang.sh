#!/usr/bin/env bash
# Sign and send one request with bash, curl and openssl:
#
#   export GERBANG_KEY=key.json
#   gerbang.sh METHOD URL [BODY]
#
# key.json is the file that the page of the new key lets you download. The answer goes to standard output; of a refusal it goes to
# standard error, where "detail" says what to do, and the status is 1.
#
# The secret is handed to no program: openssl would show an HMAC key in its command line, where every user of the machine can read
# it. So the HMAC (RFC 2104) is made here, of two plain SHA-256.
set -euo pipefail

method=$1 url=$2 body=${3-}
member() {
    local pattern="\"$1\"[[:space:]]*:[[:space:]]*\"([^\"\\]+)\""
    [[ $2 =~ $pattern ]] || { echo "gerbang.sh: $GERBANG_KEY holds no $1" >&2 && exit 1; }
    printf '%s' "${BASH_REMATCH[1]}"
}
key=$(<"${GERBANG_KEY:?the path of the key file}")
key_id=$(member key_id "$key")
secret=$(member secret "$key")
rest=${url#*://}
[[ $rest == */* ]] && path=/${rest#*/} || path=/
path=${path%%\?*}
timestamp=${EPOCHREALTIME-} # microseconds, from bash 5 on
timestamp=${timestamp//[!0-9]/}
timestamp=${timestamp:0:13}
[[ $timestamp ]] || timestamp=$(date +%s)
message="$method"$'\n'"$path"$'\n'"$timestamp${body:+$'\n'$body}"

# The secret's 64-byte block (it is shorter than that), each byte xor $1, as printf's escapes.
pad() {
    local index byte
    for ((index = 0; index < 64; index++)); do
        byte=0
        ((index < ${#secret})) && printf -v byte %d "'${secret:index:1}"
        printf '\\x%02x' $((byte ^ $1))
    done
}

sha256() { openssl dgst -sha256 -binary; }

signature=$({
    printf '%b' "$(pad 0x5c)"
    { printf '%b' "$(pad 0x36)" && printf '%s' "$message"; } | sha256
} | sha256 | openssl base64 -A)

answer=$(curl --silent --show-error --path-as-is --request "$method" --write-out '\n%{http_code}' \
    ${body:+--data-raw "$body" --header 'Content-Type: application/json'} \
    --header @<(printf 'X-API-Key: %s\nX-Request-Timestamp: %s\nX-Request-Signature: %s\n' "$key_id" "$timestamp" "$signature") \
    "$url")
status=${answer##*$'\n'} content=${answer%$'\n'*}
if ((status >= 400)); then
    printf '%s %s\n' "$status" "$content" >&2
    exit 1
fi
printf '%s\n' "$content"
