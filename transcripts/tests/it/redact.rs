//! Redaction: a table of what is a secret and what is not, and what must hold for any text: no secret is left, a second
//! pass changes nothing, sizes and JSON stay.

use proptest::prelude::*;
use serde_json::{Value, json};
use transcripts::bundled;
use transcripts::canonical;
use transcripts::message::{Message, Part, Role, ToolCall};
use transcripts::redact::{Found, Redactor, SecretKind};
use transcripts::session::Session;

/// A session of one user message and one turn with these arguments.
fn session(text: &str, arguments: &str) -> Session {
    let mut session = bundled::ALL[0].import().unwrap().sessions.remove(0);
    let turn = Message {
        tool_calls: vec![ToolCall { id: "c".into(), name: "t".into(), arguments: arguments.into() }],
        ..Message::text(Role::Assistant, "")
    };
    session.messages = vec![Message::text(Role::User, text), turn];
    session.calls.truncate(1);
    session.calls[0].prefix = vec![0];
    session.calls[0].completion = 1;
    session
}

/// The text and the arguments afterwards, and what was found.
fn redacted(text: &str, arguments: &str) -> (String, String, Found) {
    let mut session = session(text, arguments);
    let redactor = Redactor::new(std::slice::from_ref(&session)).unwrap();
    let scanned = redactor.scan(&session);
    let found = redactor.redact(&mut session);
    assert_eq!(scanned, found, "a scan counts what a redaction replaces");
    canonical::check(&session, "memory").unwrap();
    let Part::Text { text } = &session.messages[0].content[0] else { panic!("the text is gone") };
    (text.clone(), session.messages[1].tool_calls[0].arguments.clone(), found)
}

/// A text, the secret in it, and its kind.
type Case = (SecretKind, String, String);

/// A case from its parts. Secrets are written in two, so that no scanner takes this file for a leak.
fn of(kind: SecretKind, before: &str, secret: &[&str], after: &str) -> Case {
    let secret = secret.concat();
    (kind, format!("{before}{secret}{after}"), secret)
}

fn positives() -> Vec<Case> {
    [credentials(), named_and_personal()].concat()
}

/// Secrets that their form gives away.
fn credentials() -> Vec<Case> {
    let jwt = ["eyJhbGciOiJIUzI1NiJ9.", "eyJzdWIiOiIxMjM0NTY3ODkwIn0.", "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"];
    vec![
        of(SecretKind::AwsKey, "id ", &["AKIA", "Q3EGRZ7XKJ2MPLNW"], " here"),
        of(SecretKind::AwsKey, "\\n", &["ASIA", "Q3EGRZ7XKJ2MPLNW"], "\\n"),
        of(
            SecretKind::NamedSecret,
            "aws_secret_access_key = ",
            &["wJalrXUtnFEMI7MDENG", "bPxRfiCYzzzzKEY"],
            "\n",
        ),
        of(SecretKind::GithubToken, "", &["ghp_", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"], ""),
        of(SecretKind::GithubToken, "x=", &["github_pat_", "11ABCDEFG0aBcDeFgHiJ_kLmNoPqRsTuVwXyZ0123"], " "),
        of(
            SecretKind::GithubToken,
            "https://x:",
            &["ghs_", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"],
            "@github.com",
        ),
        of(SecretKind::GitlabToken, "", &["glpat-", "x1Yz2Ab3Cd4Ef5Gh6Ij7"], ""),
        of(SecretKind::AnthropicKey, "key: ", &["sk-ant-api03-", "aB3dE5gH7jK9mN1pQ3sT5vW7yZ-aB3dE5gAA"], ""),
        of(SecretKind::OpenaiKey, "'", &["sk-proj-", "aB3dE5gH7jK9mN1pQ3sT5vW7yZaB3dE5gH"], "'"),
        of(
            SecretKind::OpenaiKey,
            "OPENAI_API_KEY=",
            &["sk-", "aB3dE5gH7jK9mN1pQ3sT3BlbkFJaB3dE5gH7jK9mN1pQ3sT5"],
            "",
        ),
        of(SecretKind::SlackToken, "", &["xoxb-", "1234567890-1234567890123-aB3dE5gH7jK9mN1pQ3sT5vW7"], ""),
        of(
            SecretKind::SlackToken,
            "https://",
            &["hooks.slack.com/services/", "T0A1B2C3D/B0A1B2C3D/aB3dE5gH7jK9mN1pQ3sT5vW7"],
            "",
        ),
        of(SecretKind::GoogleKey, "?key=", &["AIza", "SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q"], "&x"),
        of(SecretKind::ServiceKey, "", &["hf_", "aBcDeFgHiJkLmNoPqRsTuVwXyZ012345"], ""),
        of(SecretKind::ServiceKey, "", &["sk_live_", "51aBcDeFgHiJkLmNoPqRs"], ""),
        of(
            SecretKind::ServiceKey,
            "//registry.npmjs.org/:_authToken=",
            &["npm_", "aB3dE5gH7jK9mN1pQ3sT5vW7yZaB3dE5gH7j"],
            "",
        ),
        of(SecretKind::Jwt, "cookie ", &jwt, ";"),
        of(SecretKind::Jwt, "Authorization: Bearer ", &jwt, ""),
        of(SecretKind::Bearer, "-H 'Authorization: Bearer ", &["a1b2c3d4", "e5f6a7b8c9d0"], "'"),
        of(SecretKind::Bearer, "\"Authorization\": \"Basic ", &["YWxpY2U6aHVu", "dGVyMjIy"], "\""),
        of(SecretKind::Bearer, "x-api-key: ", &["9f86d081884c", "7d659a2f"], ""),
    ]
}

/// Secrets that what stands around them gives away, and what names a person.
fn named_and_personal() -> Vec<Case> {
    let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj";
    vec![
        of(
            SecretKind::PrivateKey,
            "-----BEGIN RSA PRIVATE KEY-----\n",
            &[body],
            "\n-----END RSA PRIVATE KEY-----",
        ),
        of(SecretKind::UrlPassword, "postgres://admin:", &["hun", "ter2!x"], "@db.internal:5432/app"),
        of(SecretKind::NamedSecret, "export DB_PASSWORD=", &["correct", "horse"], "\n"),
        of(SecretKind::NamedSecret, "{\"password\": \"", &["Tr0ub4dor", "&3x"], "\"}"),
        of(SecretKind::NamedSecret, "{\\\"api_key\\\": \\\"", &["0123abcd", "4567ef89"], "\\\"}"),
        of(SecretKind::NamedSecret, "client_secret: ", &["f00ba4", "b4zqu0x9"], "\n"),
        of(SecretKind::NamedSecret, "SESSION_SECRET='", &["kx9wq7zr", "2mfn4bvc"], "'"),
        of(SecretKind::Email, "Author: A <", &["alice.smith", "@corp-mail.co.uk"], ">"),
        of(SecretKind::Email, "\\n", &["bob", "@gmail.com"], "\\n"),
        of(SecretKind::HomePath, "cd /home/", &["mary", "anne"], "/src"),
        of(SecretKind::HomePath, "/Users/", &["jd"], "/x"),
        of(SecretKind::HomePath, "C:\\Users\\", &["Max.Power"], "\\Desktop"),
        of(SecretKind::HomePath, "C:\\\\Users\\\\", &["Max.Power"], "\\\\Desktop"),
        of(SecretKind::HomePath, "/mnt/c/Users/", &["maxpower"], "/x"),
        of(SecretKind::HomePath, "~/.claude/projects/-home-", &["maryanne"], "-src"),
    ]
}

#[test]
fn each_secret_goes_and_its_length_stays() {
    for (kind, text, secret) in positives() {
        let (after, _, found) = redacted(&text, "{}");
        assert!(!after.contains(&secret), "{text}\n{after}");
        assert_eq!(found.counts().collect::<Vec<_>>(), [(kind, 1)], "{text}\n{after}");
        let grown = after.len() as i64 - text.len() as i64;
        assert!(
            grown == 0 || (secret.len() < 6 || kind == SecretKind::Email) && (0..=5).contains(&grown),
            "{text}\n{after}"
        );
        assert_eq!(redacted(&after, "{}").0, after, "a second pass changes nothing");
        // The same inside of arguments: it parses, and the secret is gone from what it says.
        let arguments = json!({"command": text, "n": 1.50}).to_string();
        let (_, rewritten, found) = redacted("", &arguments);
        let value: Value = serde_json::from_str(&rewritten).unwrap();
        assert!(!value["command"].as_str().unwrap().contains(&secret), "{rewritten}");
        assert_eq!(found.counts().collect::<Vec<_>>(), [(kind, 1)], "{rewritten}");
        assert_eq!(redacted("", &rewritten).1, rewritten);
    }
}

#[test]
fn what_is_no_secret_stays() {
    for text in [
        "let token = tokenizer.encode(text)?;",
        "max_tokens: 4096, \"total_tokens\": 12345678",
        "password: str = field(default=None)",
        "api_key=os.environ[\"OPENAI_API_KEY\"]",
        "OPENAI_API_KEY=${OPENAI_API_KEY} TOKEN=$TOKEN",
        "api_key = \"your-api-key-here\"; password = 'changeme'",
        "if password == other_password { return secret_of(x) }",
        "sk-circle-fade-dot-before-animation",
        "commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "Co-Authored-By: Claude <noreply@anthropic.com>",
        "git@github.com:o/r.git, someone@example.com, icon@2x.png, lodash@4.17.21, user@1000.service",
        "Bearer tokens are sent in the Authorization header",
        "Authorization: Bearer <token>",
        "https://example.org:8080/path@x and http://localhost:3000",
        "/home/user/project /home/runner/work /Users/Shared/x /root/x",
        "http://github.com/home/dashboard",
        "the -----BEGIN PRIVATE KEY----- line",
        "REDACTED sk-ant-REDACTED ghp_REDACTEDaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "550e8400-e29b-41d4-a716-446655440000",
        "secret_key_base lies in config/secrets.yml",
        "token_path: /var/run/secrets/token1",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB",
    ] {
        let (after, _, found) = redacted(text, "{}");
        assert_eq!((after.as_str(), found.counts().count()), (text, 0));
    }
}

#[test]
fn a_name_from_a_path_is_found_everywhere() {
    let text = "drwxr-xr-x 2 maryanne maryanne 4096 /home/maryanne/src, Maryanne's, not maryannes";
    let (after, _, found) = redacted(text, r#"{"owner":"maryanne"}"#);
    assert_eq!(after.len(), text.len());
    assert_eq!(after.to_lowercase().matches("maryanne").count(), 1, "{after}");
    let counts: Vec<(SecretKind, u64)> = found.counts().collect();
    assert_eq!(counts, [(SecretKind::HomePath, 1), (SecretKind::UserName, 4)]);
    assert_eq!(found.credentials(), 0);
}

#[test]
fn the_same_secret_has_one_placeholder_in_every_session() {
    let secret = ["ghp_", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"].concat();
    let (first, arguments, _) = redacted(&format!("{secret} {secret}"), &format!("{{\"t\":\"{secret}\"}}"));
    let (one, two) = first.split_once(' ').unwrap();
    assert_eq!(one, two);
    assert_eq!(arguments, format!("{{\"t\":\"{one}\"}}"));
    assert_eq!(redacted(&secret, "{}").0, one);
    assert!(one.starts_with("ghp_REDACT"), "the public prefix stays");
}

#[test]
fn a_member_that_is_named_a_secret_is_one() {
    let arguments = r#"{ "user": "x", "password" : "hunter22","note": "password"}"#;
    let (_, after, found) = redacted("", arguments);
    assert!(!after.contains("hunter22") && after.starts_with(r#"{ "user": "x", "password" : ""#), "{after}");
    assert_eq!(found.credentials(), 1);
    assert_eq!(after.len(), arguments.len());
}

#[test]
fn ids_paths_and_breaks_follow() {
    let mut session = session("/home/maryanne/x", "{}");
    session.files[0].path = "/home/maryanne/.claude/projects/p/s.jsonl".to_owned();
    session.id = "run-of-maryanne".to_owned();
    let redactor = Redactor::new(std::slice::from_ref(&session)).unwrap();
    redactor.redact(&mut session);
    let text = serde_json::to_string(&session).unwrap();
    assert!(!text.contains("maryanne"), "{text}");
    for bundled in bundled::ALL {
        let session = bundled.import().unwrap().sessions.remove(0);
        let redactor = Redactor::new(std::slice::from_ref(&session)).unwrap();
        let mut after = session.clone();
        let found = redactor.redact(&mut after);
        assert_eq!(found.credentials(), 0, "{}: {found:?}", bundled.name);
        let breaks =
            |session: &Session| session.calls.iter().map(|call| call.prefix_break).collect::<Vec<_>>();
        assert_eq!(found.counts().count() == 0, after == session);
        if found.counts().count() == 0 {
            assert_eq!(breaks(&after), breaks(&session));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_with_secrets_is_clean_afterwards(
        picks in prop::collection::vec((any::<prop::sample::Index>(), "[a-z ,.\n\"\\\\é]{0,12}"), 1..12),
    ) {
        let table = positives();
        let mut text = String::new();
        let mut secrets = Vec::new();
        for (index, noise) in &picks {
            let (_, positive, secret) = index.get(&table);
            text.push_str(&format!("{noise} {positive}\n"));
            secrets.push(secret);
        }
        let arguments = json!({"a": [&text, {"b": &text}], "c": null}).to_string();
        let (after, rewritten, found) = redacted(&text, &arguments);
        for secret in secrets.iter().filter(|secret| secret.len() > 4) {
            prop_assert!(!after.contains(secret.as_str()), "{text}\n{after}");
            let shown = format!("{found:?}");
            prop_assert!(!shown.contains(secret.as_str()));
        }
        let value: Value = serde_json::from_str(&rewritten).unwrap();
        prop_assert_eq!(value["a"][0].as_str(), Some(after.as_str()));
        prop_assert_eq!(&value["a"][0], &value["a"][1]["b"]);
        // Addresses and short names grow by five characters at most.
        prop_assert!(after.len() >= text.len() && after.len() <= text.len() + 5 * picks.len());
        let (again, arguments_again, found) = redacted(&after, &rewritten);
        prop_assert_eq!(again, after);
        prop_assert_eq!(arguments_again, rewritten);
        prop_assert_eq!(found.counts().count(), 0);
    }

    #[test]
    fn any_text_survives(text in "\\PC{0,200}", arguments in "\\PC{0,80}") {
        let (after, rewritten, _) = redacted(&text, &arguments);
        let (again, arguments_again, _) = redacted(&after, &rewritten);
        prop_assert_eq!((again, arguments_again), (after, rewritten));
    }
}
