// npm's certified oidc-provider, with one client and any customer: node provider.mjs '{"issuer", "port", "client", "jwks"}'
import { Provider } from 'oidc-provider';

const { issuer, port, client, jwks } = JSON.parse(process.argv[2]);
const provider = new Provider(issuer, {
  clients: [client],
  jwks,
  cookies: { keys: ['of this process alone'] },
  claims: { openid: ['sub'], email: ['email'], exchange: ['kyc'] },
  enabledJWA: { idTokenSigningAlgValues: ['RS256', 'EdDSA'] },
  features: { devInteractions: { enabled: true } },
  pkce: { required: () => true },
  findAccount: (_context, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@example.com`, kyc: id.startsWith('un') ? 'pending' : 'verified' }),
  }),
});
provider.listen(port, '127.0.0.1', () => console.log('ready'));
