//! The KV cache of the target: slots in device memory, who holds them, and which prefixes they keep. The one place
//! where bookkeeping and device memory meet. Knows no message and no time.

use std::borrow::Cow;

use kernels::kv::{KvDType, Slot};

use crate::config::ModelConfig;
use crate::device::Device;
use crate::error::EngineError;
use crate::kv::eviction::EvictionPlan;
use crate::kv::pool::SlotPool;
use crate::kv::prefix::{Hit, Lease, PrefixCache, Prompt, RadixIndex};
use crate::model::qwen3::Memory;
use crate::request::CachePolicy;

/// The KV memory of one model and its bookkeeping.
pub struct KvCache {
    memory: Memory,
    pool: SlotPool,
    /// `None` when prefixes are not kept.
    index: Option<RadixIndex>,
    bytes_per_token: u64,
}

/// The slots of a prompt that is running: first those of its prefix hit, then its own.
pub struct Sequence {
    /// `None` for a position of the hit whose row is dropped by its end.
    slots: Vec<Option<Slot>>,
    n_hit: usize,
    lease: Option<Lease>,
}

impl Sequence {
    /// Prompt tokens that need not run: their KV was found in the cache, or dropped since.
    pub const fn n_hit(&self) -> usize {
        self.n_hit
    }

    /// Positions that have a slot, or had one.
    pub fn n_positions(&self) -> usize {
        self.slots.len()
    }

    /// Prompt tokens whose KV was found in the cache and is still seen.
    pub fn n_reused(&self) -> usize {
        self.slots[..self.n_hit].iter().flatten().count()
    }

    /// Slots of the rows that a piece which starts at `position` sees or writes, in order, as far as the sequence goes.
    /// The rows that `evictions` have dropped by then are left out, and everything behind them moves up. `position` is
    /// not inside the hit.
    pub fn slots_from(&self, position: usize, evictions: &EvictionPlan) -> Vec<Slot> {
        let mut slots = Cow::Borrowed(&self.slots);
        for rows in evictions.gone(position) {
            slots.to_mut()[rows.positions()].fill(None);
        }
        slots.iter().copied().flatten().collect()
    }
}

impl KvCache {
    /// Bytes that one token takes over all layers.
    pub fn bytes_per_token(config: &ModelConfig, dtype: KvDType) -> u64 {
        (2 * config.n_layers * config.n_kv_heads * config.head_dim * dtype.bytes()) as u64
    }

    /// An empty cache of as many slots as `budget_bytes` holds. On the CPU the memory is reserved, and touched as slots
    /// are used; on a card it is taken.
    ///
    /// # Errors
    /// The budget holds no slot, or the card not the budget.
    pub fn new(
        device: &Device,
        config: &ModelConfig,
        dtype: KvDType,
        budget_bytes: u64,
        policy: CachePolicy,
    ) -> Result<Self, EngineError> {
        let bytes_per_token = Self::bytes_per_token(config, dtype);
        let n_slots = u32::try_from(budget_bytes / bytes_per_token).unwrap_or(u32::MAX);
        if n_slots == 0 {
            return Err(EngineError::KvBudget { needed: bytes_per_token, budget: budget_bytes, n_tokens: 1 });
        }
        Ok(Self {
            memory: Memory::new(device, config, dtype, n_slots as usize)?,
            pool: SlotPool::new(n_slots),
            index: (policy == CachePolicy::On).then(RadixIndex::new),
            bytes_per_token,
        })
    }

    /// Whether prefixes are kept.
    pub const fn keeps_prefixes(&self) -> bool {
        self.index.is_some()
    }

    /// The keys and values, to be read and written by a pass.
    pub const fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Bytes of the slots in use.
    pub fn bytes_in_use(&self) -> u64 {
        self.pool.used_slots() as u64 * self.bytes_per_token
    }

    /// Searches and pins the longest reusable prefix, and lets go of the rows that the prompt drops by its end; `None`
    /// when prefixes are not kept.
    ///
    /// # Errors
    /// The bookkeeping is broken: an error of this program.
    pub fn lookup(&mut self, prompt: &Prompt<'_>) -> Result<Option<Hit>, EngineError> {
        let Some(index) = &mut self.index else { return Ok(None) };
        let hit = index.lookup(prompt);
        index.forget(&hit, &mut self.pool)?;
        Ok(Some(hit))
    }

    /// Slots for `n_tokens` tokens of which `hit` has the first, evicting other prefixes where needed.
    ///
    /// # Errors
    /// The budget does not hold so many tokens even with everything else evicted. Rows that the hit dropped count as the
    /// others do: were the prefix lost, the whole prompt would have to run again.
    pub fn open(&mut self, hit: Option<Hit>, n_tokens: usize) -> Result<Sequence, EngineError> {
        let (mut slots, lease) = hit.map_or((Vec::new(), None), |hit| (hit.slots, Some(hit.lease)));
        let n_hit = slots.len();
        let n_own = n_tokens - n_hit;
        // A prompt that can never fit must not cost the others their place.
        let fits = n_tokens <= self.pool.n_slots();
        if let Some(index) = self.index.as_mut().filter(|_| fits) {
            index.evict(n_own, &mut self.pool)?;
        }
        let own = if fits { self.pool.alloc(n_own) } else { None };
        let Some(own) = own else {
            self.unpin(lease);
            return Err(EngineError::KvBudget {
                needed: n_tokens as u64 * self.bytes_per_token,
                budget: self.pool.n_slots() as u64 * self.bytes_per_token,
                n_tokens: n_tokens as u64,
            });
        };
        slots.extend(own.into_iter().map(Some));
        Ok(Sequence { slots, n_hit, lease })
    }

    /// Ends a call: publishes the prompt's KV as far as it is written (`n_written` tokens), then lets go of the slots.
    ///
    /// # Errors
    /// The bookkeeping is broken: an error of this program.
    pub fn close(
        &mut self,
        prompt: &Prompt<'_>,
        sequence: Sequence,
        n_written: usize,
    ) -> Result<(), EngineError> {
        let n_publish = n_written.min(prompt.tokens().len());
        if let Some(index) = &mut self.index {
            index.publish(prompt, &sequence.slots[..n_publish], &mut self.pool)?;
        }
        let own: Vec<Slot> = sequence.slots[sequence.n_hit..].iter().copied().flatten().collect();
        self.pool.release(&own)?;
        self.unpin(sequence.lease);
        Ok(())
    }

    /// Recounts every slot.
    ///
    /// # Errors
    /// The first count that is wrong.
    pub fn check_invariants(&self) -> Result<(), EngineError> {
        match &self.index {
            Some(index) => index.check_invariants(&self.pool),
            None => self.pool.check_invariants(),
        }
    }

    fn unpin(&mut self, lease: Option<Lease>) {
        if let (Some(index), Some(lease)) = (&mut self.index, lease) {
            index.release(lease);
        }
    }
}
