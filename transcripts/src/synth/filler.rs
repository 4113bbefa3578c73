//! Lines of tool outputs that nobody asked for: code, configuration, logs, hits, build and test output, listings, JSON,
//! diffs, prose. Each kind is a table of line templates. Knows no fact and no session.

use crate::synth::draw::Draw;
use crate::synth::names::capitalised;

/// What a tool printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A source file.
    Code,
    /// A configuration file.
    Config,
    /// A service's log.
    Log,
    /// Hits of a search.
    Hits,
    /// A compiler's messages.
    Build,
    /// A test run.
    Tests,
    /// A folder.
    Listing,
    /// One JSON object per line.
    Json,
    /// A patch.
    Diff,
    /// Environment variables.
    Environment,
    /// Names and where they are defined.
    Symbols,
    /// Documentation.
    Prose,
}

/// A group of lines: one of `open`, some of `body`, one of `close`.
struct Block {
    open: &'static [&'static str],
    body: &'static [&'static str],
    n_body: (usize, usize),
    close: &'static [&'static str],
}

// In a template: $w word, $W Word, $V WORD, $i identifier, $p path, $t time, $y type, $1 to $5 a number of so many digits.
const RUST: Block = Block {
    open: &[
        "pub fn $i($w: $y) -> $y {",
        "fn $i(&self, $w: $y) -> $y {",
        "impl $W$W {",
        "async fn $i($w: $y) {",
    ],
    body: &[
        "    let $i = $w.$w($w);",
        "    let mut $i = $W$W::new($w, $2);",
        "    if $w > $3 { return $w; }",
        "    for $w in $w.iter() { self.$w += $w; }",
        "    $w.$w($w, \"$w\")?;",
        "    // The $w is $w before the $w.",
        "    assert_eq!($i, $w.$w());",
    ],
    n_body: (2, 9),
    close: &["}", "}\n"],
};
const PYTHON: Block = Block {
    open: &["def $i(self, $w):", "class $W$W:", "def $i($w, $w=None):"],
    body: &[
        "    $i = self.$w.$w($w)",
        "    if $w is None: return $w",
        "    self.$w[$w] = $w + $2",
        "    for $w in $w:",
        "    log.info(\"$w %s\", $w)",
        "    raise ValueError(\"no $w\")",
    ],
    n_body: (2, 8),
    close: &["    return $w", "    return $i\n"],
};
const CONFIG: Block = Block {
    open: &["[$w.$w]", "[$w]", "# $W $w"],
    body: &["$i = $3", "$i = \"$w\"", "$i = true", "$i = false", "$i = [\"$w\", \"$w\"]", "$i = \"$w-$w\""],
    n_body: (2, 8),
    close: &[""],
};
const LOG: Block = Block {
    open: &["$t INFO $w::$w: $w started", "$t INFO $w::$w: $w $w ready"],
    body: &[
        "$t INFO $w::$w: $w $w done in $3 ms",
        "$t DEBUG $w::$w: $w=$2 $w=$3",
        "$t WARN $w::$w: retry $1 of $w $w",
        "$t INFO $w::$w: opened $p",
        "$t DEBUG $w::$w: worker $2 took $w",
        "$t INFO $w::$w: $i is now $w",
    ],
    n_body: (5, 14),
    close: &["$t INFO $w::$w: $w stopped"],
};
const HITS: Block = Block {
    open: &["$p:$2:use crate::$w::$i;", "$p:$3:// $W $w"],
    body: &[
        "$p:$3:    let $w = $i($w);",
        "$p:$2:    self.$w.$w();",
        "$p:$3:    // $w $w",
        "$p:$2:use crate::$w::$w;",
    ],
    n_body: (3, 9),
    close: &["$p:$3:}"],
};
const BUILD: Block = Block {
    open: &["   Compiling $w-$w v$1.$2.$1", "    Checking $w-$w v$1.$1.$2"],
    body: &[
        "   Compiling $w-$w v$1.$1.$1",
        "warning: unused variable: `$i`\n  --> $p:$3:$1",
        "warning: function `$i` is never used\n  --> $p:$2:$1",
        "$3 |     let $i = $w;",
    ],
    n_body: (3, 8),
    close: &["warning: `$w-$w` generated $1 warnings"],
};
const TESTS: Block = Block {
    open: &["     Running $p", "running $2 tests"],
    body: &["test $i::$i ... ok", "test $w::$i ... ok", "test $i::$w ... ok", "test $w::$w ... ignored"],
    n_body: (5, 14),
    close: &["test result: ok. $2 passed; 0 failed"],
};
const LISTING: Block = Block {
    open: &["$w/$w:", "total $3"],
    body: &["-rw-r--r-- 1 $w $w $5 $i.rs", "-rw-r--r-- 1 $w $w $4 $i.json", "drwxr-xr-x 2 $w $w 4096 $i"],
    n_body: (4, 12),
    close: &[""],
};
const JSON: Block = Block {
    open: &["{\"$w\": \"$w\", \"$w\": $3}"],
    body: &[
        "{\"$w\": $2, \"$w\": \"$i\", \"$w\": true}",
        "{\"$w\": \"$w-$4\", \"$w\": [$2, $2]}",
        "{\"$w\": \"$i\", \"$w\": $3}",
    ],
    n_body: (3, 8),
    close: &["{\"$w\": null}"],
};
const DIFF: Block = Block {
    open: &["diff --git a/$p b/$p\n@@ -$2,$1 +$2,$1 @@"],
    body: &[
        "-    let $i = $w;",
        "+    let $i = $w.$w();",
        "     $w.$w($w);",
        "+    // $w $w",
        "-    return $w;",
    ],
    n_body: (4, 10),
    close: &["     }"],
};
const ENVIRONMENT: Block = Block {
    open: &["$V_PATH=/$w/$w"],
    body: &["$V_$V=$w", "$V_$V=$3", "$V_$V=/$w/$w", "$V_URL=http://$w.local:$4", "$V=$w"],
    n_body: (4, 10),
    close: &["$V_HOME=/$w/$w"],
};
const SYMBOLS: Block = Block {
    open: &["# $p"],
    body: &["$i: $p:$2", "$i: $p:$3", "$w: $p:$2"],
    n_body: (4, 10),
    close: &["# $2 symbols"],
};
const PROSE: Block = Block {
    open: &["# $W $w", "## $W and $w"],
    body: &[
        "The $w reads the $w before the $w is open.",
        "Each $w keeps its own $w until the $w is full.",
        "A $w without a $w is dropped after $2 seconds.",
        "See `$p` for the $w of the $w.",
        "- `$i`: the $w of the $w, $2 by default",
    ],
    n_body: (2, 6),
    close: &[""],
};

const TYPES: &[&str] =
    &["u32", "u64", "usize", "String", "bool", "i64", "f32", "Vec<u8>", "&str", "Option<u32>"];

impl Output {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Code,
        Self::Config,
        Self::Log,
        Self::Hits,
        Self::Build,
        Self::Tests,
        Self::Listing,
        Self::Json,
        Self::Diff,
        Self::Environment,
        Self::Symbols,
        Self::Prose,
    ];

    const fn block(self, draw: &mut Draw) -> &'static Block {
        match self {
            Self::Code if draw.one_in(2) => &PYTHON,
            Self::Code => &RUST,
            Self::Config => &CONFIG,
            Self::Log => &LOG,
            Self::Hits => &HITS,
            Self::Build => &BUILD,
            Self::Tests => &TESTS,
            Self::Listing => &LISTING,
            Self::Json => &JSON,
            Self::Diff => &DIFF,
            Self::Environment => &ENVIRONMENT,
            Self::Symbols => &SYMBOLS,
            Self::Prose => &PROSE,
        }
    }

    /// Lines of this kind, without line ends, of `chars` characters in all (ends included), less a part of a line.
    pub fn lines(self, draw: &mut Draw, chars: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let mut left = chars;
        loop {
            for line in self.block(draw).lines(draw) {
                if line.len() + 1 > left {
                    return lines;
                }
                left -= line.len() + 1;
                lines.push(line);
            }
        }
    }
}

impl Block {
    fn lines(&self, draw: &mut Draw) -> Vec<String> {
        let mut text = expanded(draw.pick(self.open), draw);
        for _ in 0..draw.within(self.n_body.0..=self.n_body.1) {
            text = format!("{text}\n{}", expanded(draw.pick(self.body), draw));
        }
        text = format!("{text}\n{}", expanded(draw.pick(self.close), draw));
        text.split('\n').map(str::to_owned).collect()
    }
}

/// A template with its places filled.
fn expanded(template: &str, draw: &mut Draw) -> String {
    let mut parts = template.split('$');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (place, rest) = part.split_at(part.len().min(1));
        match place {
            "w" => text.push_str(draw.word()),
            "W" => text.push_str(&capitalised(draw.word())),
            "V" => text.push_str(&draw.word().to_uppercase()),
            "i" => text.push_str(&draw.identifier()),
            "p" => text.push_str(&draw.path()),
            "t" => text.push_str(&draw.time()),
            "y" => text.push_str(draw.pick(TYPES)),
            _ => text.push_str(&draw.digits(place.parse().unwrap_or(1))),
        }
        text.push_str(rest);
    }
    text
}
