//! What secrets look like: one row per kind of credential, with the part that is public (a prefix, a key's name) and
//! the part that is not. Pure table and rules; what happens to a find is elsewhere.

use serde::{Deserialize, Serialize};

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretKind {
    /// A PEM or OpenPGP private key.
    PrivateKey,
    /// An access key id of Amazon Web Services.
    AwsKey,
    /// A token of GitHub.
    GithubToken,
    /// A token of GitLab.
    GitlabToken,
    /// A key of Anthropic's API.
    AnthropicKey,
    /// A key of OpenAI's API, or of one that has the same form.
    OpenaiKey,
    /// A token or a web hook of Slack.
    SlackToken,
    /// A key or an access token of Google.
    GoogleKey,
    /// A key of another service with a prefix of its own.
    ServiceKey,
    /// A JSON web token.
    Jwt,
    /// What follows `Bearer`, or stands in an `Authorization` header.
    Bearer,
    /// The password of a URL.
    UrlPassword,
    /// The value of a variable or member whose name says that it is secret.
    NamedSecret,
    /// An e-mail address.
    Email,
    /// A user's name in the path of a home folder.
    HomePath,
    /// The name of such a user anywhere else.
    UserName,
}

impl SecretKind {
    /// The words used in lists of finds.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PrivateKey => "private key",
            Self::AwsKey => "AWS key",
            Self::GithubToken => "GitHub token",
            Self::GitlabToken => "GitLab token",
            Self::AnthropicKey => "Anthropic key",
            Self::OpenaiKey => "OpenAI-style key",
            Self::SlackToken => "Slack token",
            Self::GoogleKey => "Google key",
            Self::ServiceKey => "service key",
            Self::Jwt => "JSON web token",
            Self::Bearer => "authorization header",
            Self::UrlPassword => "URL password",
            Self::NamedSecret => "named secret",
            Self::Email => "e-mail address",
            Self::HomePath => "home path",
            Self::UserName => "user name",
        }
    }

    /// True for what opens a door, false for what names a person.
    pub const fn is_credential(self) -> bool {
        !matches!(self, Self::Email | Self::HomePath | Self::UserName)
    }
}

/// One form of a secret.
pub(super) struct Pattern {
    pub kind: SecretKind,
    /// What every match holds, as an expression that is cheap to look for: a text without it is not searched.
    pub needle: &'static str,
    /// A regular expression with one or two groups: `key` is the name before a value, `body` what is replaced.
    pub expression: &'static str,
    /// What else a find must fulfil.
    pub accepts: fn(&Find<'_>) -> bool,
}

/// A match of an expression.
pub(super) struct Find<'a> {
    pub key: &'a str,
    pub body: &'a str,
    /// The text after the body.
    pub after: &'a str,
}

/// In the order in which they claim text: a key with a prefix before the variable that holds it.
pub(super) const PATTERNS: &[Pattern] = &[
    of(
        SecretKind::PrivateKey,
        "PRIVATE KEY",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[ \t\r\n]|\\+[rn])*(?P<body>[A-Za-z0-9][^-]{20,}?)-----END",
        always,
    ),
    of(
        SecretKind::AwsKey,
        "AKIA|ASIA|ABIA|ACCA|AGPA|AIDA|AROA|ANPA",
        r"(?:AKIA|ASIA|ABIA|ACCA|AGPA|AIDA|AROA|ANPA)(?P<body>[A-Z0-9]{16})",
        ends,
    ),
    of(
        SecretKind::GithubToken,
        "gh[pousr]_|github_pat_",
        r"(?:gh[pousr]_|github_pat_)(?P<body>[A-Za-z0-9_]{22,255})",
        ends,
    ),
    of(
        SecretKind::GitlabToken,
        "gl(?:pat|ptt|dt|rt|cbt|oas)-",
        r"gl(?:pat|ptt|dt|rt|cbt|oas)-(?P<body>[A-Za-z0-9_-]{20,})",
        is_mixed,
    ),
    of(
        SecretKind::AnthropicKey,
        "sk-ant-",
        r"sk-ant-(?:[a-z]+[0-9]+-)?(?P<body>[A-Za-z0-9_-]{20,})",
        is_mixed,
    ),
    of(
        SecretKind::OpenaiKey,
        "sk-",
        r"sk-(?:proj-|svcacct-|admin-|or-v1-|lf-)?(?P<body>[A-Za-z0-9_-]{20,})",
        is_mixed,
    ),
    of(
        SecretKind::SlackToken,
        "xox[abeoprs]-|xapp-",
        r"(?:xox[abeoprs]|xapp)-(?P<body>[A-Za-z0-9-]{10,})",
        is_mixed,
    ),
    of(
        SecretKind::SlackToken,
        r"hooks\.slack\.com/",
        r"hooks\.slack\.com/(?:services|workflows)/(?P<body>[A-Za-z0-9/+]{20,})",
        always,
    ),
    of(SecretKind::GoogleKey, "AIza", r"AIza(?P<body>[A-Za-z0-9_-]{35})", ends),
    of(SecretKind::GoogleKey, r"ya29\.|GOCSPX-", r"(?:ya29\.|GOCSPX-)(?P<body>[A-Za-z0-9_-]{20,})", is_mixed),
    of(
        SecretKind::ServiceKey,
        "hf_|npm_|gsk_|xai-|r8_|nvapi-|pypi-|pplx-|dop_v1_|tvly-|whsec_|lin_api_|shpat_|dckr_pat_|[srp]k_(?:live|test)_",
        r"(?:hf_|npm_|gsk_|xai-|r8_|nvapi-|pypi-|pplx-|dop_v1_|tvly-|whsec_|lin_api_|shpat_|dckr_pat_|[srp]k_(?:live|test)_)(?P<body>[A-Za-z0-9_-]{16,})",
        is_mixed,
    ),
    of(SecretKind::ServiceKey, r"SG\.", r"SG\.(?P<body>[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,})", is_mixed),
    of(
        SecretKind::Jwt,
        "eyJ",
        r"eyJ(?P<body>[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]{8,})?)",
        always,
    ),
    of(
        SecretKind::Bearer,
        "(?i-u)bearer",
        r"(?i-u:bearer)[ \t]+(?P<body>[A-Za-z0-9._~+/-]{16,}=*)",
        is_mixed,
    ),
    of(
        SecretKind::Bearer,
        "(?i-u)authorization|x-api-key",
        r#"(?i-u:authorization|x-api-key)\\*["']?[ \t]*[:=][ \t]*\\*["']?(?:(?i-u:basic|token|digest|apikey)[ \t]+)?(?P<body>[A-Za-z0-9._~+/-]{12,}=*)"#,
        is_mixed,
    ),
    of(
        SecretKind::UrlPassword,
        "://",
        r#"[a-z][a-z0-9+.-]{1,20}://[^\s:/@"'`<>\\{}$]{0,80}:(?P<body>[^\s/@"'`<>\\{}$]{3,80})@"#,
        is_no_example,
    ),
    of(
        SecretKind::NamedSecret,
        "(?i-u)secret|token|passw|passphrase|pwd|(?:api|access|private|auth|encryption)[_-]?key|credential",
        r#"(?P<key>(?i-u)[a-z0-9_.-]{0,60}(?:secret|token|passw(?:or)?d|passwd|passphrase|pwd|api[_-]?key|access[_-]?key|private[_-]?key|auth[_-]?key|encryption[_-]?key|credentials?)[a-z0-9_-]{0,40})(?:\\*["'])?[ \t]*(?::|=|=>|:=)[ \t]*(?P<body>(?:\\*["'])?[!-~&&[^"'`\\,;(){}\[\]<>$]]{6,400})"#,
        is_value,
    ),
    of(
        SecretKind::Email,
        "@",
        r"(?P<body>[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}\.)(?:[A-Za-z0-9-]{1,63}\.){0,4}[A-Za-z]{2,12})",
        is_address,
    ),
    of(
        SecretKind::HomePath,
        "home|[Uu]sers",
        r"(?:(?:/var|/export|/private|/mnt/[a-z])?/(?:home|Users)/|[A-Za-z]:(?:\\{1,4}|/)[Uu]sers(?:\\{1,4}|/)|-(?:home|Users)-)(?P<body>[A-Za-z0-9_][A-Za-z0-9._-]{0,63})",
        always,
    ),
];

const fn of(
    kind: SecretKind,
    needle: &'static str,
    expression: &'static str,
    accepts: fn(&Find<'_>) -> bool,
) -> Pattern {
    Pattern { kind, needle, expression, accepts }
}

const fn always(_: &Find<'_>) -> bool {
    true
}

/// The token ends where the expression does.
fn ends(find: &Find<'_>) -> bool {
    !find.after.starts_with(|next: char| next.is_ascii_alphanumeric())
}

/// Letters and digits: what a generated key has and a word has not.
fn is_mixed(find: &Find<'_>) -> bool {
    let has = |kind: fn(&u8) -> bool| find.body.as_bytes().iter().any(kind);
    has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic) && is_no_example(find)
}

/// Words that stand where a secret is to be filled in.
const EXAMPLES: &[&str] = &[
    "changeme",
    "change-me",
    "change_me",
    "your",
    "example",
    "placeholder",
    "xxx",
    "***",
    "...",
    "dummy",
    "password",
    "passwd",
    "secret",
    "token",
    "undefined",
    "null",
    "none",
    "true",
    "false",
    "process.env",
    "os.environ",
    "env.",
    "string",
    "optional",
    "required",
    "pass",
];

fn is_no_example(find: &Find<'_>) -> bool {
    let body = find.body.to_ascii_lowercase();
    let body = body.trim_matches(|c: char| c == '"' || c == '\'' || c == '\\');
    let exact = EXAMPLES.contains(&body);
    let long = EXAMPLES.iter().take(9).any(|word| body.starts_with(word));
    !exact && !long
}

/// The value of a named secret: quoted, or after the name of a shell variable, it may be anything but an example;
/// elsewhere (code, prose) it must look generated.
fn is_value(find: &Find<'_>) -> bool {
    let value = find.body.trim_start_matches(['\\', '"', '\'']);
    let is_quoted = value.len() < find.body.len();
    let key = find.key.trim_matches(['-', '.']);
    let counts = ["tokens", "token_count", "token_id", "token_type", "tokenizer", "max_token"];
    let lower = key.to_ascii_lowercase();
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    if value.len() < 6 || digits == value.len() || !is_no_example(find) {
        return false;
    }
    if counts.iter().any(|count| lower.contains(count)) || is_path_or_call(value, find.after) {
        return false;
    }
    let letters = value.bytes().filter(u8::is_ascii_alphabetic).count();
    let is_mixed = digits > 0 && letters > 0;
    let has_cases =
        value.bytes().any(|b| b.is_ascii_lowercase()) && value.bytes().any(|b| b.is_ascii_uppercase());
    let is_shell = key.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let says_password =
        ["password", "passwd", "passphrase", "secret"].iter().any(|word| lower.contains(word));
    match (is_quoted, is_shell) {
        (_, true) => is_mixed || letters >= 6,
        (true, false) => is_mixed || says_password || (has_cases && value.len() >= 16),
        (false, false) => is_mixed && value.len() >= 8,
    }
}

/// A path, an address without a password, or an expression of a program.
fn is_path_or_call(value: &str, after: &str) -> bool {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let is_member = value.contains('.')
        && value.split('.').all(|part| word(part) && !part.as_bytes()[0].is_ascii_digit());
    value.contains("://")
        || value.starts_with(['/', '.', '~', '%', '&', '*', '='])
        || after.starts_with(['(', '[', '{', '<', '$'])
        || (is_member && value.len() < 40)
        || value.contains("::")
}

/// An address of a person: not one of a service, of a document, or of a package with its version.
fn is_address(find: &Find<'_>) -> bool {
    let (local, domain) = find.body.split_once('@').unwrap_or_default();
    let (local, domain) = (local.to_ascii_lowercase(), domain.to_ascii_lowercase());
    let top = domain.rsplit('.').next().unwrap_or_default();
    let services = ["git", "noreply", "no-reply", "donotreply", "root", "postmaster", "hg", "svn"];
    let files = [
        "png", "jpg", "jpeg", "gif", "svg", "webp", "js", "ts", "tsx", "jsx", "mjs", "cjs", "css", "json",
        "html", "txt", "lock", "service", "socket", "timer", "target", "toml", "yaml", "yml", "rst", "jar",
        "gz", "zip", "whl", "tgz",
    ];
    let is_example = ["example.com", "example.org", "example.net"].iter().any(|e| domain.ends_with(e));
    !services.contains(&local.as_str()) && !files.contains(&top) && !is_example
}

/// Names of home folders that name no person.
pub(super) const NOBODY: &[&str] = &[
    "user",
    "users",
    "username",
    "your",
    "you",
    "me",
    "name",
    "root",
    "admin",
    "ubuntu",
    "debian",
    "fedora",
    "centos",
    "alpine",
    "node",
    "runner",
    "runneradmin",
    "vscode",
    "codespace",
    "jovyan",
    "git",
    "dev",
    "developer",
    "app",
    "work",
    "workspace",
    "code",
    "data",
    "test",
    "tests",
    "main",
    "shared",
    "public",
    "default",
    "guest",
    "build",
    "builder",
    "docker",
    "ec2-user",
    "sandbox",
    "agent",
    "claude",
    "codex",
    "openhands",
    "swe-agent",
    "linuxbrew",
    "project",
    "projects",
    "python",
    "index",
    "home",
    "page",
    "nobody",
    "runtime",
    "circleci",
    "travis",
    "jenkins",
    "model",
    "repo",
    "src",
    "tmp",
    "nonroot",
    "appuser",
    "container",
    "redacted",
];
