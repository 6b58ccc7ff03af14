// A provider for the tests: node provider.mjs '{"port": 0, "redirect": "http://…", "logout": "http://…", …}'
// Its log-in form takes any password; users are named in "users", with their claims.

import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const asked = JSON.parse(process.argv[2]);

function key(kid) {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid, use: 'sig', alg: 'RS256' };
}

const server = createServer();
server.listen(asked.port, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'pleura',
      client_secret: asked.secret,
      redirect_uris: [asked.redirect],
      post_logout_redirect_uris: [asked.logout],
    }],
    claims: { openid: ['sub'], profile: ['name', 'preferred_username', 'groups'] },
    conformIdTokenClaims: asked.userinfo, // true: groups and names are at the userinfo endpoint only
    findAccount: (_, id) => asked.users[id] && { accountId: id, claims: () => ({ sub: id, ...asked.users[id] }) },
    jwks: { keys: [key(`key of ${process.pid}`)] },
    cookies: { keys: ['no secret: this is a test'] },
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
