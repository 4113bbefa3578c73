//! Names as source trees and logs hold them: words, identifiers, paths, ids. Plain ASCII, so that a byte is a character.

use crate::synth::draw::Draw;

/// What names are made of.
pub const WORDS: &[&str] = &[
    "access", "account", "action", "adapter", "agent", "alarm", "alias", "anchor", "apple", "archive",
    "arrow", "asset", "atlas", "audio", "badge", "balance", "banner", "barrel", "basket", "batch", "beacon",
    "bench", "bias", "binary", "blob", "block", "board", "bonus", "border", "branch", "bridge", "broker",
    "bucket", "budget", "buffer", "bundle", "cable", "cache", "camera", "canvas", "carbon", "castle",
    "cedar", "center", "chain", "channel", "chart", "check", "chunk", "circle", "claim", "client", "clock",
    "cloud", "cobalt", "codec", "column", "comet", "config", "copper", "coral", "counter", "crane", "credit",
    "crystal", "cursor", "cycle", "daemon", "data", "delta", "depth", "device", "digest", "docker", "domain",
    "draft", "driver", "eagle", "echo", "edge", "editor", "ember", "engine", "entry", "error", "event",
    "export", "fabric", "factor", "falcon", "fetch", "field", "filter", "flag", "flash", "folder", "forest",
    "forge", "format", "frame", "frost", "garden", "gate", "glass", "grant", "graph", "grid", "group",
    "guard", "guide", "harbor", "hash", "hazel", "header", "heap", "helper", "history", "hook", "host",
    "image", "index", "ingest", "input", "island", "item", "jacket", "journal", "junction", "kernel",
    "ladder", "lantern", "layer", "layout", "leaf", "ledger", "level", "library", "light", "limit", "linker",
    "list", "loader", "lock", "logger", "loop", "lotus", "magnet", "manager", "manifest", "map", "marble",
    "margin", "mask", "matrix", "meadow", "memory", "merge", "message", "meter", "method", "metric",
    "mirror", "model", "module", "monitor", "motion", "needle", "network", "node", "notice", "number", "oak",
    "object", "offset", "olive", "onyx", "option", "orbit", "order", "origin", "outlet", "owner", "packet",
    "page", "panel", "parser", "patch", "path", "pebble", "piece", "pilot", "pixel", "planet", "plugin",
    "pocket", "point", "policy", "pool", "portal", "prefix", "printer", "probe", "profile", "proxy", "pulse",
    "quartz", "query", "queue", "quota", "radar", "range", "rate", "raven", "reader", "record", "region",
    "relay", "render", "report", "request", "resolver", "result", "ridge", "ring", "river", "rocket",
    "router", "sample", "scale", "scanner", "schema", "scope", "score", "sensor", "server", "session",
    "shadow", "shard", "shell", "signal", "silver", "socket", "source", "spark", "split", "stack", "stage",
    "status", "storm", "stream", "summit", "switch", "symbol", "table", "target", "ticket", "timer", "token",
    "tower", "trace", "tracker", "trail", "tunnel", "vector", "vendor", "view", "village", "volume", "wagon",
    "walker", "window", "winter", "wire", "worker", "writer", "zone",
];

const ROOTS: &[&str] = &["src", "lib", "tests", "app", "core", "tools", "crates", "docs"];
const EXTENSIONS: &[&str] = &["rs", "py", "toml", "json", "ts", "go", "md", "yaml", "c", "h"];

impl Draw {
    /// One word.
    pub const fn word(&mut self) -> &'static str {
        self.pick(WORDS)
    }

    /// One to three words joined by `_`, a few of them with a number.
    pub fn identifier(&mut self) -> String {
        let n_words = self.pick(&[1, 2, 2, 2, 3]);
        let name = self.words(n_words, "_");
        if self.one_in(8) { format!("{name}{}", self.below(100)) } else { name }
    }

    /// Two words joined by `_`: a name that people ask for.
    pub fn key(&mut self) -> String {
        self.words(2, "_")
    }

    /// A file of a source tree.
    pub fn path(&mut self) -> String {
        let mut path = self.pick(ROOTS).to_owned();
        for _ in 0..self.pick(&[0, 1, 1, 2]) {
            path = format!("{path}/{}", self.word());
        }
        let n_words = self.pick(&[1, 2, 2]);
        format!("{path}/{}.{}", self.words(n_words, "_"), self.pick(EXTENSIONS))
    }

    /// A number of exactly `n_digits` digits, the first not 0.
    pub fn digits(&mut self, n_digits: usize) -> String {
        let first = char::from(b'1' + self.below(9) as u8);
        let rest = (1..n_digits).map(|_| char::from(b'0' + self.below(10) as u8));
        std::iter::once(first).chain(rest).collect()
    }

    /// A time of day.
    pub fn time(&mut self) -> String {
        format!("{:02}:{:02}:{:02}", self.below(24), self.below(60), self.below(60))
    }

    /// `n` words joined by `joint`.
    pub fn words(&mut self, n: usize, joint: &str) -> String {
        (0..n).map(|_| self.word()).collect::<Vec<_>>().join(joint)
    }
}

/// A word with its first letter in upper case.
pub fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
