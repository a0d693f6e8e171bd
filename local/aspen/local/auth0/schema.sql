-- The identity provider's state. Times are in seconds since 1970; lists and objects are JSON.
-- Secrets that are handed out are stored as SHA-256 hashes only: each is 256 random bits.

CREATE TABLE IF NOT EXISTS signing_keys (
  kid TEXT PRIMARY KEY,
  private_key TEXT NOT NULL,
  made_at REAL NOT NULL,
  retired_at REAL,
  revoked_at REAL
) STRICT;

CREATE TABLE IF NOT EXISTS secrets (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS clients (
  client_id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  public INTEGER NOT NULL,
  secret_hash TEXT,
  grants TEXT NOT NULL,
  callbacks TEXT NOT NULL,
  logout_urls TEXT NOT NULL,
  audiences TEXT NOT NULL,
  login_uri TEXT NOT NULL,
  management_scopes TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS users (
  user_id TEXT PRIMARY KEY,
  email TEXT NOT NULL COLLATE NOCASE UNIQUE,
  name TEXT NOT NULL,
  email_verified INTEGER NOT NULL,
  blocked INTEGER NOT NULL DEFAULT 0,
  details TEXT NOT NULL DEFAULT '{}',
  user_metadata TEXT NOT NULL DEFAULT '{}',
  app_metadata TEXT NOT NULL DEFAULT '{}',
  created_at REAL NOT NULL,
  updated_at REAL NOT NULL,
  last_login REAL,
  logins_count INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE IF NOT EXISTS organizations (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  display_name TEXT NOT NULL,
  branding TEXT,
  metadata TEXT,
  created_at REAL NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS roles (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  description TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS members (
  organization_id TEXT NOT NULL REFERENCES organizations ON DELETE CASCADE,
  user_id TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
  PRIMARY KEY (organization_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS member_roles (
  organization_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  role_id TEXT NOT NULL REFERENCES roles ON DELETE CASCADE,
  PRIMARY KEY (organization_id, user_id, role_id),
  FOREIGN KEY (organization_id, user_id) REFERENCES members ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS invitations (
  id TEXT PRIMARY KEY,
  organization_id TEXT NOT NULL REFERENCES organizations ON DELETE CASCADE,
  client_id TEXT NOT NULL,
  ticket TEXT NOT NULL UNIQUE,
  inviter_name TEXT NOT NULL,
  invitee_email TEXT NOT NULL COLLATE NOCASE,
  roles TEXT NOT NULL,
  user_metadata TEXT NOT NULL,
  app_metadata TEXT NOT NULL,
  connection_id TEXT,
  created_at REAL NOT NULL,
  expires_at REAL NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS device_requests (
  device_hash TEXT PRIMARY KEY,
  user_code TEXT NOT NULL UNIQUE,
  client_id TEXT NOT NULL REFERENCES clients ON DELETE CASCADE,
  scope TEXT NOT NULL,
  audience TEXT,
  organization_id TEXT REFERENCES organizations ON DELETE CASCADE,
  status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'approved', 'denied')),
  user_id TEXT REFERENCES users ON DELETE CASCADE,
  auth_time REAL,
  interval REAL NOT NULL,
  polled_at REAL,
  expires_at REAL NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS codes (
  code_hash TEXT PRIMARY KEY,
  client_id TEXT NOT NULL REFERENCES clients ON DELETE CASCADE,
  user_id TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
  organization_id TEXT REFERENCES organizations ON DELETE CASCADE,
  redirect_uri TEXT NOT NULL,
  scope TEXT NOT NULL,
  audience TEXT,
  nonce TEXT,
  challenge TEXT,
  auth_time REAL NOT NULL,
  family TEXT NOT NULL,
  used_at REAL,
  expires_at REAL NOT NULL
) STRICT;

-- All refresh tokens that come from one sign-in belong to one family.
CREATE TABLE IF NOT EXISTS refresh_tokens (
  token_hash TEXT PRIMARY KEY,
  family TEXT NOT NULL,
  client_id TEXT NOT NULL REFERENCES clients ON DELETE CASCADE,
  user_id TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
  organization_id TEXT REFERENCES organizations ON DELETE CASCADE,
  scope TEXT NOT NULL,
  audience TEXT,
  auth_time REAL NOT NULL,
  made_at REAL NOT NULL,
  used_at REAL,
  revoked_at REAL,
  expires_at REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS refresh_tokens_family ON refresh_tokens (family);

-- The sessions of people who are signed in to the provider's own pages.
CREATE TABLE IF NOT EXISTS sessions (
  session_hash TEXT PRIMARY KEY,
  user_id TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
  auth_time REAL NOT NULL,
  expires_at REAL NOT NULL
) STRICT;

-- The e-mails that were sent; they stay here, with their links in plain text.
CREATE TABLE IF NOT EXISTS mail (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  sent_at REAL NOT NULL,
  recipient TEXT NOT NULL COLLATE NOCASE,
  subject TEXT NOT NULL,
  link TEXT NOT NULL,
  text TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS mail_recipient ON mail (recipient);

-- The links that set a password or verify an address. A changed address invalidates them.
CREATE TABLE IF NOT EXISTS tickets (
  ticket_hash TEXT PRIMARY KEY,
  purpose TEXT NOT NULL,
  user_id TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
  email TEXT NOT NULL COLLATE NOCASE,
  verifies_email INTEGER NOT NULL,
  result_url TEXT,
  includes_email INTEGER NOT NULL,
  client_id TEXT REFERENCES clients ON DELETE CASCADE,
  organization_id TEXT REFERENCES organizations ON DELETE CASCADE,
  used_at REAL,
  expires_at REAL NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS jobs (
  id TEXT PRIMARY KEY,
  type TEXT NOT NULL,
  created_at REAL NOT NULL
) STRICT;

-- Auth0's tenant log.
CREATE TABLE IF NOT EXISTS logs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  date REAL NOT NULL,
  type TEXT NOT NULL,
  description TEXT NOT NULL,
  user_id TEXT,
  user_name TEXT,
  client_id TEXT,
  client_name TEXT,
  organization_id TEXT,
  ip TEXT,
  user_agent TEXT,
  details TEXT
) STRICT;
