#!/usr/bin/env bash
# Sign and send one request with bash, curl and openssl:
#
#   export GERBANG_KEY=key.json GERBANG_DIALECT=mobee    # or binance, rfc9421
#   gerbang.sh METHOD URL [BODY]
#
# key.json is the file offered for download when a key is created; for your own Ed25519 or RSA key it has "private_key" (PEM; newlines as \n)
# instead of "secret". The answer is printed on standard output; a refusal on standard error, where "detail" says what to do, with exit
# status 1.
#
# The secret is not passed to any program: openssl would show an HMAC key in its command line, where every user of the machine can read
# it. So the HMAC (RFC 2104) is computed here, from two plain SHA-256.
set -euo pipefail

(($# >= 2)) || { echo "gerbang.sh METHOD URL [BODY]" >&2 && exit 2; }
method=$1 url=$2 body=${3-}
member() { # of the key file; empty when it is not there
    local pattern="\"$1\"[[:space:]]*:[[:space:]]*\"([^\"]+)\""
    [[ $key =~ $pattern ]] && printf '%b' "${BASH_REMATCH[1]}" || true
}
key=$(<"${GERBANG_KEY:?the path of the key file}")
key_id=$(member key_id) secret=$(member secret) private=$(member private_key)
[[ $key_id && $secret$private ]] || { echo "gerbang.sh: $GERBANG_KEY holds no key_id, or no secret" >&2 && exit 1; }
rest=${url#*://}
[[ $rest == */* ]] && target=/${rest#*/} || target=/
path=${target%%\?*} query=
[[ $target == *\?* ]] && query=${target#*\?}
timestamp=${EPOCHREALTIME-} # microseconds, from bash 5 on
timestamp=${timestamp//[!0-9]/}
timestamp=${timestamp:0:13}
[[ $timestamp ]] || timestamp=$(date +%s)000

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

# The signature of $1, in Base64.
sign() {
    if [[ $secret ]]; then
        {
            printf '%b' "$(pad 0x5c)"
            { printf '%b' "$(pad 0x36)" && printf '%s' "$1"; } | sha256
        } | sha256 | openssl base64 -A
    elif ((${#private} < 300)); then # Ed25519: openssl wants its message in a file
        local file
        file=$(mktemp) && printf '%s' "$1" >"$file"
        openssl pkeyutl -sign -rawin -in "$file" -inkey <(printf '%s' "$private") | openssl base64 -A
        rm -f "$file"
    else
        printf '%s' "$1" | openssl dgst -sha256 -sign <(printf '%s' "$private") | openssl base64 -A
    fi
}

headers=() type=application/json
case ${GERBANG_DIALECT:-mobee} in
mobee)
    signature=$(sign "$method"$'\n'"$path"$'\n'"$timestamp${body:+$'\n'$body}")
    headers=("X-API-Key: $key_id" "X-Request-Timestamp: $timestamp" "X-Request-Signature: $signature")
    ;;
binance) # the parameters stand in the query or, as a form, in the body
    payload=${body:-$query}
    payload=${payload:+$payload&}timestamp=$timestamp
    signature=$(sign "${body:+$query}$payload")
    if [[ $secret ]]; then
        signature=$(openssl base64 -d -A <<<"$signature" | od -An -v -tx1 | tr -d ' \n')
    else
        signature=${signature//+/%2B} signature=${signature//\//%2F} signature=${signature//=/%3D}
    fi
    payload+="&signature=$signature"
    if [[ $body ]]; then body=$payload type=application/x-www-form-urlencoded; else url=${url%%\?*}?$payload; fi
    headers=("X-MBX-APIKEY: $key_id")
    ;;
rfc9421)
    names='"@method" "@path"' base="\"@method\": $method"$'\n'"\"@path\": $path"
    if [[ $target == *\?* ]]; then names+=' "@query"' base+=$'\n'"\"@query\": ?$query"; fi
    if [[ $body ]]; then
        digest="sha-256=:$(printf '%s' "$body" | sha256 | openssl base64 -A):"
        names+=' "content-digest"' base+=$'\n'"\"content-digest\": $digest"
        headers+=("Content-Digest: $digest")
    fi
    parameters="($names);created=${timestamp:0:10};keyid=\"$key_id\";nonce=\"$(openssl rand -hex 16)\""
    signature=$(sign "$base"$'\n'"\"@signature-params\": $parameters")
    headers+=("Signature-Input: sig=$parameters" "Signature: sig=:$signature:")
    ;;
*)
    echo "gerbang.sh: GERBANG_DIALECT is mobee, binance or rfc9421" >&2 && exit 2
    ;;
esac

how=(--request "$method")
[[ $method == HEAD ]] && how=(--head) # or curl waits for the content that a HEAD does not bring
answer=$(curl --silent --show-error --path-as-is --max-time 30 "${how[@]}" --write-out '\n%{http_code}' \
    ${body:+--data-raw "$body" --header "Content-Type: $type"} --header @<(printf '%s\n' "${headers[@]}") "$url")
status=${answer##*$'\n'} content=${answer%$'\n'*}
if ((status >= 400)); then
    printf '%s %s\n' "$status" "$content" >&2
    exit 1
fi
printf '%s\n' "$content"
