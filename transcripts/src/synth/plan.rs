//! What happens in a generated session, before any size or text is fixed: which facts are asked for, in which outputs
//! they stand, and which requests need a fact of an earlier output. Knows no message.

use std::collections::BTreeSet;

use crate::synth::draw::Draw;
use crate::synth::fact::{Fact, FactKind};

/// Most facts of one output that a later request asks for.
const EXTRA_MAX: usize = 2;
/// Most lines of the form of a fact that nobody asks for, in one output.
const DISTRACTORS_MAX: usize = 4;

/// One request of the person and what follows from it.
#[derive(Clone, Debug)]
pub struct Turn {
    /// What is asked for.
    pub fact: Fact,
    /// How its fact comes into sight.
    pub sight: Sight,
}

/// How the fact of a request comes into sight.
#[derive(Clone, Debug)]
pub enum Sight {
    /// By exploring: the output holds the fact, and these others of its form.
    Explored {
        /// Facts that later requests ask for.
        pending: Vec<Fact>,
        /// Facts that nobody asks for.
        distractors: Vec<Fact>,
    },
    /// It stands in an earlier output.
    Shown,
}

impl Turn {
    /// Model calls: exploring where it explores, acting, closing.
    pub const fn n_calls(&self) -> usize {
        match self.sight {
            Sight::Explored { .. } => 3,
            Sight::Shown => 2,
        }
    }
}

/// Turns of at least `n_calls` calls.
pub fn turns(draw: &mut Draw, n_calls: usize) -> Vec<Turn> {
    let mut keys = Keys::default();
    let mut pending: Vec<Fact> = Vec::new();
    let mut turns: Vec<Turn> = Vec::new();
    let mut planned = 0;
    while planned < n_calls {
        let turn = if !pending.is_empty() && draw.one_in(2) {
            let fact = pending.swap_remove(draw.below(pending.len()));
            Turn { fact, sight: Sight::Shown }
        } else {
            explored(draw, &mut keys)
        };
        if let Sight::Explored { pending: more, .. } = &turn.sight {
            pending.extend(more.iter().cloned());
        }
        planned += turn.n_calls();
        turns.push(turn);
    }
    turns
}

fn explored(draw: &mut Draw, keys: &mut Keys) -> Turn {
    let kind = draw.pick(&FactKind::ALL);
    let fact = keys.fresh(kind, draw);
    let (n_pending, n_distractors) = (draw.within(0..=EXTRA_MAX), draw.within(0..=DISTRACTORS_MAX));
    let pending = (0..n_pending).map(|_| keys.fresh(kind, draw)).collect();
    let distractors = (0..n_distractors).map(|_| keys.fresh(kind, draw)).collect();
    Turn { fact, sight: Sight::Explored { pending, distractors } }
}

/// Keys in use: a request names exactly one fact of its session.
#[derive(Default)]
struct Keys {
    taken: BTreeSet<String>,
}

impl Keys {
    fn fresh(&mut self, kind: FactKind, draw: &mut Draw) -> Fact {
        loop {
            let fact = kind.draw(draw);
            if self.taken.insert(fact.key.to_lowercase()) {
                return fact;
            }
        }
    }
}
