#!/usr/bin/env bash
# Sign and send one request with bash, curl and openssl:
#
#   export GERBANG_KEY_ID=gbk_… GERBANG_SECRET=gbs_…
#   gerbang.sh METHOD URL [BODY]
#
# The secret is handed to no program: openssl would show an HMAC key in its command line, where every user of the machine can read
# it. So the HMAC (RFC 2104) is made here, of two plain SHA-256.
set -euo pipefail

method=$1 url=$2 body=${3-}
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
        ((index < ${#GERBANG_SECRET})) && printf -v byte %d "'${GERBANG_SECRET:index:1}"
        printf '\\x%02x' $((byte ^ $1))
    done
}

sha256() { openssl dgst -sha256 -binary; }

signature=$({
    printf '%b' "$(pad 0x5c)"
    { printf '%b' "$(pad 0x36)" && printf '%s' "$message"; } | sha256
} | sha256 | openssl base64 -A)

curl --silent --show-error --path-as-is --request "$method" --write-out '\n' \
    ${body:+--data-raw "$body" --header 'Content-Type: application/json'} \
    --header @<(printf 'X-API-Key: %s\nX-Request-Timestamp: %s\nX-Request-Signature: %s\n' "$GERBANG_KEY_ID" "$timestamp" "$signature") \
    "$url"
