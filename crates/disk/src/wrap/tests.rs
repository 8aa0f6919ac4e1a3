//! Each kind of rule does what it says, to the requests that it names, and to no other.

use super::*;
use crate::memory::MemoryDisk;

type Injected = InjectedDisk<MemoryDisk>;

fn with_disk<F: Future<Output = ()>>(test: impl FnOnce(Rc<Injected>, Injector) -> F) {
    let disk = Rc::new(InjectedDisk::new(MemoryDisk::new(1 << 20)));
    let injector = disk.injector();
    let runtime = compio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(test(disk, injector));
}

fn rule(op: InjectOp, kind: InjectKind) -> InjectRule {
    InjectRule { op, range: None, kind, count: None, percent: None, seed: 1 }
}

async fn read(disk: &Injected, offset: u64, len: usize) -> Result<Buf, DiskFault> {
    let (result, buf) = disk.read(offset, Buf::zeroed(len)).await;
    result.map(|()| buf)
}

fn flipped_bits(buf: &[u8]) -> u32 {
    buf.iter().map(|byte| byte.count_ones()).sum()
}

#[test]
fn an_error_hits_its_range_its_operation_and_its_count() {
    with_disk(|disk, injector| async move {
        let range = Some(ByteRange { start: 8192, len: 1 });
        let error = InjectRule { range, count: Some(2), ..rule(InjectOp::Read, InjectKind::Error) };
        injector.add(error).expect("a fine rule");
        for _ in 0..2 {
            assert!(read(&disk, 4096, 4096).await.is_ok(), "ends before the range");
            assert!(read(&disk, 12288, 4096).await.is_ok(), "begins after the range");
            assert_eq!(disk.write(8192, Buf::zeroed(4096)).await, Ok(()));
            let fault = read(&disk, 0, 16384).await.expect_err("touches the range");
            assert_eq!((fault.kind, fault.errno), (FaultKind::Medium, 5));
        }
        assert!(read(&disk, 0, 16384).await.is_ok(), "the rule is spent");
        let rules = injector.list();
        assert_eq!((rules[0].hits, rules[0].spent), (2, true));
        assert!(!disk.armed(), "a spent rule costs one more look, then nothing");
    });
}

#[test]
fn death_is_for_every_request_until_it_is_cleared() {
    with_disk(|disk, injector| async move {
        let id = injector
            .add(InjectRule { count: Some(1), ..rule(InjectOp::Write, InjectKind::Death) })
            .expect("a fine rule");
        assert!(read(&disk, 0, 4096).await.is_ok(), "alive until the first write");
        assert_eq!(disk.write(0, Buf::zeroed(4096)).await, Err(GONE));
        assert_eq!(read(&disk, 0, 4096).await.err(), Some(GONE));
        assert_eq!(disk.flush().await, Err(GONE));
        assert_eq!(disk.discard(0, 4096).await, Err(GONE));
        assert!(injector.remove(id) && !injector.remove(id));
        assert!(read(&disk, 0, 4096).await.is_ok());
    });
}

#[test]
fn a_stalled_write_that_nobody_waits_for_still_lands_after_the_stall() {
    with_disk(|disk, injector| async move {
        injector.add(rule(InjectOp::Write, InjectKind::Stall)).expect("a fine rule");
        let mut write = Box::pin(disk.write(0, Buf::copy_of(&[7; 4096])));
        assert!(poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx).is_pending())).await);
        drop(write);
        assert_eq!(flipped_bits(&read(&disk, 0, 4096).await.expect("reads pass")), 0);
        injector.clear();
        // The write goes on as a task of its own, which is ready now and runs before this one is polled again.
        compio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(read(&disk, 0, 4096).await.expect("reads pass")[4095], 7);
    });
}

#[test]
fn a_delay_takes_its_time_and_changes_nothing() {
    with_disk(|disk, injector| async move {
        injector.add(rule(InjectOp::Any, InjectKind::Delay { ms: 20 })).expect("a fine rule");
        let begun = std::time::Instant::now();
        assert_eq!(disk.flush().await, Ok(()));
        assert!(begun.elapsed() >= Duration::from_millis(20));
    });
}

#[test]
fn corruption_flips_one_bit_for_each_block_inside_the_range() {
    with_disk(|disk, injector| async move {
        let range = Some(ByteRange { start: 4096, len: 8192 });
        let corrupt = |op| InjectRule { range, ..rule(op, InjectKind::Corrupt) };
        let id = injector.add(corrupt(InjectOp::Read)).expect("a fine rule");
        let seen = read(&disk, 0, 16384).await.expect("silent");
        assert_eq!(flipped_bits(&seen), 2);
        assert_eq!(flipped_bits(&seen[4096..12288]), 2);
        injector.remove(id);
        assert_eq!(flipped_bits(&read(&disk, 0, 16384).await.expect("whole")), 0);

        injector.add(corrupt(InjectOp::Write)).expect("a fine rule");
        let data = Buf::zeroed(16384);
        assert_eq!(disk.write(0, data.clone()).await, Ok(()));
        assert_eq!(flipped_bits(&data), 0, "the caller's bytes stay");
        injector.clear();
        assert_eq!(flipped_bits(&read(&disk, 0, 16384).await.expect("readable")), 2);
    });
}

#[test]
fn chance_is_seeded() {
    with_disk(|disk, injector| async move {
        let chance = InjectRule { percent: Some(30.0), ..rule(InjectOp::Flush, InjectKind::Error) };
        let mut runs = Vec::new();
        for _ in 0..2 {
            injector.clear();
            injector.add(chance.clone()).expect("a fine rule");
            let mut run = Vec::new();
            for _ in 0..100 {
                run.push(disk.flush().await.is_err());
            }
            runs.push(run);
        }
        assert_eq!(runs[0], runs[1]);
        let hits = injector.list()[0].hits;
        assert!((15..45).contains(&hits), "{hits} of 100 with seed 1");
    });
}

#[test]
fn senseless_rules_are_refused_and_the_text_form_is_stable() {
    let injector = Injector::default();
    let error = rule(InjectOp::Any, InjectKind::Error);
    for percent in [0.0, -1.0, 100.5, f64::NAN] {
        let rule = InjectRule { percent: Some(percent), ..error.clone() };
        assert!(matches!(injector.add(rule), Err(RuleError::Percent(_))));
    }
    let never = InjectRule { count: Some(0), ..error };
    assert_eq!(injector.add(never), Err(RuleError::Nothing));
    let flush = rule(InjectOp::Flush, InjectKind::Corrupt);
    assert_eq!(injector.add(flush), Err(RuleError::CorruptFlush));

    let text =
        r#"{"op":"write","range":{"start":0,"len":4096},"kind":{"type":"delay","ms":5},"seed":0}"#;
    let rule: InjectRule = serde_json::from_str(text).expect("the documented form");
    assert_eq!(serde_json::to_string(&rule).expect("plain data"), text);
    let short: InjectRule = serde_json::from_str(r#"{"kind":{"type":"death"}}"#).expect("defaults");
    assert_eq!((short.op, short.count), (InjectOp::Any, None));
}
