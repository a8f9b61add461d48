<?php
// Sign in each dialect, with a secret or a private key: php sign.php URL KEYFILE DIALECT METHOD TARGET [BODY]
//
// KEYFILE is {"key_id", "secret"} as downloaded, or {"key_id", "private_key"} with the PEM of your own Ed25519 or RSA key.

function sign(array $key, string $message): string
{
    if (!isset($key['private_key'])) {
        return hash_hmac('sha256', $message, $key['secret'], true);
    }
    // An Ed25519 key in PKCS #8 (RFC 8410) ends with its 32 bytes.
    $der = base64_decode(preg_replace('/-----[^-]+-----|\s/', '', $key['private_key']));
    if (strlen($der) === 48) {
        return sodium_crypto_sign_detached($message, sodium_crypto_sign_secretkey(sodium_crypto_sign_seed_keypair(substr($der, -32))));
    }
    openssl_sign($message, $signature, $key['private_key'], OPENSSL_ALGO_SHA256);
    return $signature;
}

function now_ms(): string
{
    return (string) (int) (microtime(true) * 1000);
}

function mobee(array $key, string $method, string $target, string $body): array
{
    $time = now_ms();
    $message = implode("\n", [$method, explode('?', $target, 2)[0], $time, ...($body === '' ? [] : [$body])]);
    $signature = base64_encode(sign($key, $message));
    return [$target, ["X-API-Key: {$key['key_id']}", "X-Request-Timestamp: $time", "X-Request-Signature: $signature"], $body];
}

// The parameters are in the query or, as a form, in the body.
function binance(array $key, string $method, string $target, string $body): array
{
    [$path, $query] = explode('?', $target, 2) + [1 => ''];
    $payload = ltrim(($body === '' ? $query : $body) . '&timestamp=' . now_ms(), '&');
    $raw = sign($key, ($body === '' ? '' : $query) . $payload);
    $payload .= '&signature=' . (isset($key['private_key']) ? rawurlencode(base64_encode($raw)) : bin2hex($raw));
    $headers = ["X-MBX-APIKEY: {$key['key_id']}"];
    if ($body === '') {
        return ["$path?$payload", $headers, ''];
    }
    return [$target, [...$headers, 'Content-Type: application/x-www-form-urlencoded'], $payload];
}

function rfc9421(array $key, string $method, string $target, string $body): array
{
    $parts = explode('?', $target, 2);
    $covered = ['@method' => $method, '@path' => $parts[0]];
    $headers = [];
    if (isset($parts[1])) {
        $covered['@query'] = "?{$parts[1]}";
    }
    if ($body !== '') {
        $covered['content-digest'] = 'sha-256=:' . base64_encode(hash('sha256', $body, true)) . ':';
        $headers[] = "Content-Digest: {$covered['content-digest']}";
    }
    $names = '"' . implode('" "', array_keys($covered)) . '"';
    $parameters = sprintf('(%s);created=%d;keyid="%s";nonce="%s"', $names, time(), $key['key_id'], bin2hex(random_bytes(16)));
    $base = '';
    foreach ($covered as $name => $value) {
        $base .= "\"$name\": $value\n";
    }
    $signature = base64_encode(sign($key, "$base\"@signature-params\": $parameters"));
    return [$target, [...$headers, "Signature-Input: sig=$parameters", "Signature: sig=:$signature:"], $body];
}

if ($argc < 6 || !in_array($argv[3], ['mobee', 'binance', 'rfc9421'], true)) {
    fwrite(STDERR, "php sign.php URL KEYFILE mobee|binance|rfc9421 METHOD TARGET [BODY]\n");
    exit(1);
}
[, $url, $keyFile, $dialect, $method, $target] = $argv;
$key = json_decode(file_get_contents($keyFile), true, 8, JSON_THROW_ON_ERROR);
[$target, $headers, $body] = $dialect($key, $method, $target, $argv[6] ?? '');
if ($body !== '' && !preg_grep('/^Content-Type:/', $headers)) {
    $headers[] = 'Content-Type: application/json';
}
$http = ['method' => $method, 'header' => $headers, 'content' => $body, 'ignore_errors' => true, 'timeout' => 10];
$answer = file_get_contents($url . $target, false, stream_context_create(['http' => $http]));
if ($answer === false) {
    exit(1);
}
$status = (int) explode(' ', $http_response_header[0])[1];
if ($status >= 400) {
    fwrite(STDERR, "$status $answer\n"); // "detail" says why, and what to do
    exit(1);
}
echo "$answer\n";
