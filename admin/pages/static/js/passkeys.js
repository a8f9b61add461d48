// WebAuthn between the browser's own objects and the JSON of WebAuthn Level 3 §5.1 (older browsers have no conversions of their own).

/** Can this browser, on this page, use passkeys at all? Web views of some apps cannot. */
export const possible = typeof PublicKeyCredential === "function" && Boolean(navigator.credentials);

/** RegistrationResponseJSON for the options of the server. */
export async function register(options) {
  const credential = await navigator.credentials.create({
    publicKey: {
      ...options,
      challenge: bytes(options.challenge),
      user: { ...options.user, id: bytes(options.user.id) },
      excludeCredentials: (options.excludeCredentials ?? []).map(descriptor),
    },
  });
  return {
    ...envelope(credential),
    response: {
      clientDataJSON: base64url(credential.response.clientDataJSON),
      attestationObject: base64url(credential.response.attestationObject),
      transports: credential.response.getTransports?.() ?? [],
    },
  };
}

/** AuthenticationResponseJSON for the options of the server. */
export async function assert(options) {
  const credential = await navigator.credentials.get({
    publicKey: { ...options, challenge: bytes(options.challenge), allowCredentials: (options.allowCredentials ?? []).map(descriptor) },
  });
  const { clientDataJSON, authenticatorData, signature, userHandle } = credential.response;
  return {
    ...envelope(credential),
    response: {
      clientDataJSON: base64url(clientDataJSON),
      authenticatorData: base64url(authenticatorData),
      signature: base64url(signature),
      userHandle: userHandle ? base64url(userHandle) : undefined,
    },
  };
}

function envelope(credential) {
  return {
    id: credential.id,
    rawId: base64url(credential.rawId),
    type: credential.type,
    authenticatorAttachment: credential.authenticatorAttachment ?? undefined,
    clientExtensionResults: {},
  };
}

function descriptor(credential) {
  return { ...credential, id: bytes(credential.id) };
}

function bytes(encoded) {
  const padded = encoded.replace(/-/g, "+").replace(/_/g, "/");
  return Uint8Array.from(atob(padded), (character) => character.charCodeAt(0));
}

function base64url(buffer) {
  const binary = String.fromCharCode(...new Uint8Array(buffer));
  return btoa(binary).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}
