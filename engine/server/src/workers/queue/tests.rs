use proptest::prelude::*;

use super::*;

const CHEAP: Duration = Duration::from_micros(200);
const DEAR: Duration = Duration::from_millis(30);

type Jobs = Queue<u8, u32>;
type Under = Turn<u8, ()>;

/// Serves one job of a lane to its end.
fn serve(queue: &mut Jobs, lane: Lane, cost: impl Fn(u8) -> Duration) -> Option<(u8, u32)> {
    let (turn, job) = queue.pop(lane)?.split();
    let tenant = turn.tenant;
    queue.end(turn, Some(cost(tenant)));
    Some((tenant, job))
}

/// A queue in which these tenants are past their trial in the fast lane.
fn known(tenants: impl IntoIterator<Item = u8>) -> Jobs {
    let mut queue = Jobs::new();
    for tenant in tenants {
        for job in 0..TRIAL {
            queue.push(&tenant, job);
            assert_eq!(serve(&mut queue, Lane::Fast, |_| CHEAP), Some((tenant, job)));
        }
    }
    queue
}

#[test]
fn a_stranger_takes_one_thread_until_it_is_known() {
    let mut queue = known([1]);
    for job in 0..50 {
        queue.push(&9, job);
    }
    queue.push(&1, 0);
    let (stranger, _) = queue.pop(Lane::Fast).expect("it may run").split();
    assert_eq!(stranger.tenant, 9);
    let (other, _) = queue.pop(Lane::Fast).expect("others may").split();
    assert_eq!(other.tenant, 1, "though 49 jobs of the stranger came first");
    assert!(queue.pop(Lane::Fast).is_none(), "one of the stranger's at a time");
    queue.end(other, Some(CHEAP));
    queue.end(stranger, Some(DEAR));
    assert!(!queue.has_turn(Lane::Fast), "it is known now, and waits elsewhere");
    assert_eq!((queue.waiting(Lane::Fast), queue.waiting(Lane::Slow)), (0, 49));
    let slow: Vec<_> = std::iter::from_fn(|| queue.pop(Lane::Slow)).map(|turn| turn.job).collect();
    assert_eq!(slow, (1..50).collect::<Vec<_>>(), "in the order in which they came");
}

#[test]
fn one_that_floods_keeps_the_other_waiting_for_two_turns_at_most() {
    let mut queue = known([1, 2]);
    for job in 0..200 {
        queue.push(&1, job);
    }
    for job in 0..50 {
        queue.push(&2, job);
        let served: Vec<u8> = (0..3)
            .map(|_| serve(&mut queue, Lane::Fast, |_| CHEAP).expect("jobs wait").0)
            .collect();
        assert!(served.contains(&2), "{served:?}");
    }
}

#[test]
fn time_is_shared_and_not_turns() {
    let cost = |tenant: u8| CHEAP * if tenant == 1 { 8 } else { 1 };
    let mut queue = known([1, 2]);
    for job in 0..200 {
        queue.push(&1, job);
        queue.push(&2, job);
    }
    let served = (0..90).filter(|_| serve(&mut queue, Lane::Fast, cost).unwrap().0 == 1).count();
    assert!((9..=11).contains(&served), "{served} turns of 90 are half of the time");
}

#[test]
fn idling_saves_nothing_up() {
    let mut queue = known([1, 2]);
    for job in 0..200 {
        queue.push(&1, job);
    }
    for _ in 0..100 {
        assert_eq!(serve(&mut queue, Lane::Fast, |_| CHEAP).unwrap().0, 1);
    }
    for job in 0..100 {
        queue.push(&2, job);
    }
    let of_2 = (0..50).filter(|_| serve(&mut queue, Lane::Fast, |_| CHEAP).unwrap().0 == 2).count();
    assert!((24..=26).contains(&of_2), "{of_2} of 50, as if it had just come");
}

/// Has a tenant's jobs done until it is in the lane, and says how many that took.
fn until(queue: &mut Jobs, lane: Lane, cost: Duration) -> u32 {
    let mut done = 0;
    loop {
        queue.push(&1, done);
        if queue.waiting(lane) > 0 {
            let turn = queue.pop(lane).expect("it is alone").split().0;
            queue.end(turn, None);
            return done;
        }
        let other = if lane == Lane::Fast { Lane::Slow } else { Lane::Fast };
        serve(queue, other, |_| cost).expect("it is in the other lane");
        done += 1;
    }
}

#[test]
fn a_tenant_that_becomes_cheap_returns_later_each_time() {
    let mut queue = Jobs::new();
    let mut expected = FIRST_PENANCE;
    for _ in 0..4 {
        assert_eq!(until(&mut queue, Lane::Slow, DEAR), 1, "one is enough");
        assert_eq!(until(&mut queue, Lane::Fast, CHEAP), expected);
        expected *= 2;
    }
    for _ in 0..20 {
        until(&mut queue, Lane::Slow, DEAR);
        assert!(until(&mut queue, Lane::Fast, CHEAP) <= MAX_PENANCE);
    }
}

#[test]
fn what_took_long_once_in_a_while_is_forgiven() {
    let (mut queue, mut apart) = (Jobs::new(), Vec::new());
    for _ in 0..40 {
        assert_eq!(until(&mut queue, Lane::Slow, DEAR), 1);
        apart.push(until(&mut queue, Lane::Fast, CHEAP));
        for job in 0..1_000 {
            queue.push(&1, job);
            serve(&mut queue, Lane::Fast, |_| CHEAP).expect("it stays there");
        }
    }
    let most = apart.iter().max().unwrap();
    assert!(*most <= 4 * FIRST_PENANCE, "{apart:?}: the same each time, and not for ever longer");
}

#[test]
fn a_little_above_the_threshold_is_forgiven_once_but_not_as_a_habit() {
    let mut queue = known([1, 2, 3]);
    let little = NEVER_EXPENSIVE + NEVER_EXPENSIVE / 2;
    queue.push(&1, 0);
    serve(&mut queue, Lane::Fast, |_| little).unwrap();
    queue.push(&1, 0);
    assert_eq!(queue.waiting(Lane::Fast), 1);
    serve(&mut queue, Lane::Fast, |_| little).unwrap();
    assert!(until(&mut queue, Lane::Slow, little) < 4);
}

/// Some tenants' evaluations, one each in turn, often enough to be known.
fn used_to(costs: &[Duration]) -> Jobs {
    let mut queue = Jobs::new();
    for job in 0..2 * TRIAL {
        for tenant in 0..u8::try_from(costs.len()).unwrap() {
            queue.push(&tenant, job);
            let cost = |tenant: u8| costs[usize::from(tenant)];
            let fast = serve(&mut queue, Lane::Fast, cost);
            fast.or_else(|| serve(&mut queue, Lane::Slow, cost)).expect("it has a job");
        }
    }
    queue
}

#[test]
fn what_is_expensive_follows_from_what_is_typical() {
    let lane_of = |costs: &[u64], tenant: u8| {
        let costs: Vec<Duration> = costs.iter().map(|cost| Duration::from_millis(*cost)).collect();
        used_to(&costs).tenants[&tenant].lane
    };
    // Where policies take long for everybody, nobody is expensive for that.
    assert_eq!(lane_of(&[3, 3, 3], 0), Lane::Fast);
    assert_eq!(lane_of(&[3], 0), Lane::Fast);
    assert_eq!(lane_of(&[3, 11], 0), Lane::Fast, "of two, the cheaper one is typical");
    // Whoever takes much longer than the others is.
    for (costs, tenant) in [(&[1, 1, 5][..], 2), (&[5, 1], 0), (&[2, 2, 2, 9], 3)] {
        assert_eq!(lane_of(costs, tenant), Lane::Slow, "{costs:?}");
    }
    // Expensive ones that are many do not make each other cheap.
    for tenant in 0..3 {
        assert_eq!(lane_of(&[11, 12, 40, 1], tenant), Lane::Slow);
    }
    assert_eq!(lane_of(&[11, 12, 40, 1], 3), Lane::Fast);
}

#[test]
fn who_has_gone_costs_its_tenant_next_to_nothing() {
    let mut queue = known([1, 2]);
    for job in 0..100 {
        queue.push(&1, job);
        queue.push(&2, job);
    }
    let mut gone = 0;
    let mut served = [0; 3];
    for _ in 0..60 {
        let (turn, _) = queue.pop(Lane::Fast).unwrap().split();
        let cost = (turn.tenant == 2).then_some(CHEAP);
        gone += u32::from(cost.is_none());
        served[usize::from(turn.tenant)] += 1;
        queue.end(turn, cost);
    }
    assert!(gone > 50, "{served:?}: the gone ones were passed over quickly");
}

#[test]
fn idle_tenants_are_forgotten_and_busy_ones_are_not() {
    let mut queue = Queue::<u32, u32>::new();
    queue.push(&0, 7);
    for tenant in 1..u32::try_from(10 * REMEMBERED).unwrap() {
        queue.push(&tenant, 0);
        let turns: Vec<_> = std::iter::from_fn(|| queue.pop(Lane::Fast)).collect();
        for turn in turns.into_iter().map(|turn| turn.split().0) {
            // The first is kept under way.
            if turn.tenant != 0 {
                queue.end(turn, Some(CHEAP));
            }
        }
    }
    assert!(queue.tenants.len() <= REMEMBERED, "{}", queue.tenants.len());
    assert_eq!(queue.tenants[&0].running, 1);
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8),
    Pop(bool),
    /// Ends one of those under way, with a cost in microseconds or none.
    End(usize, Option<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    let cost = prop_oneof![1 => Just(None), 4 => (0_u64..1_000).prop_map(Some),
        1 => (1_000_u64..50_000).prop_map(Some)];
    prop_oneof![
        4 => (0_u8..6).prop_map(Step::Push),
        4 => any::<bool>().prop_map(Step::Pop),
        3 => (any::<usize>(), cost).prop_map(|(which, cost)| Step::End(which, cost)),
    ]
}

/// What must be so, worked out from the tenants alone.
fn check(queue: &Jobs) {
    for lane in [Lane::Fast, Lane::Slow] {
        let of_lane = || queue.tenants.iter().filter(|(_, tenant)| tenant.lane == lane);
        let waiting: usize = of_lane().map(|(_, tenant)| tenant.jobs.len()).sum();
        assert_eq!(queue.waiting(lane), waiting);
        let ready = of_lane().filter(|(_, tenant)| tenant.may_run());
        let mut order: Vec<_> = ready.map(|(name, tenant)| (tenant.tag, *name)).collect();
        order.sort();
        let turns = if lane == Lane::Fast { &queue.fast } else { &queue.slow };
        assert_eq!(turns.order.iter().copied().collect::<Vec<_>>(), order);
        assert_eq!(queue.has_turn(lane), !order.is_empty());
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_doubled_or_overtaken_within_a_tenant(
        steps in prop::collection::vec(step(), 1..400)
    ) {
        let mut queue = Jobs::new();
        let mut model: BTreeMap<u8, VecDeque<u32>> = BTreeMap::new();
        let mut under_way: Vec<Under> = Vec::new();
        let mut next = 0;
        let popped = |turn: Turn<u8, u32>, model: &mut BTreeMap<u8, VecDeque<u32>>| {
            let (turn, job) = turn.split();
            let expected = model.get_mut(&turn.tenant).and_then(VecDeque::pop_front);
            assert_eq!(expected, Some(job), "the tenant's oldest, once");
            turn
        };
        for step in steps {
            match step {
                Step::Push(tenant) => {
                    queue.push(&tenant, next);
                    model.entry(tenant).or_default().push_back(next);
                    next += 1;
                }
                Step::Pop(fast) => {
                    let lane = if fast { Lane::Fast } else { Lane::Slow };
                    under_way.extend(queue.pop(lane).map(|turn| popped(turn, &mut model)));
                }
                Step::End(which, cost) if !under_way.is_empty() => {
                    let turn = under_way.swap_remove(which % under_way.len());
                    queue.end(turn, cost.map(Duration::from_micros));
                }
                Step::End(..) => {}
            }
            check(&queue);
        }
        // Threads that go on drain both lanes.
        while !queue.is_empty() || !under_way.is_empty() {
            let before = under_way.len();
            for lane in [Lane::Fast, Lane::Slow] {
                under_way.extend(queue.pop(lane).map(|turn| popped(turn, &mut model)));
            }
            if under_way.len() == before || under_way.len() > 3 {
                queue.end(under_way.swap_remove(0), Some(CHEAP));
            }
            check(&queue);
        }
        prop_assert!(model.values().all(VecDeque::is_empty));
        prop_assert!(queue.tenants.values().all(Tenant::is_idle));
    }

    /// Two tenants that always have jobs waiting get the same time of the threads, but for a few
    /// jobs: those under way, and one more.
    #[test]
    fn backlogged_tenants_get_equal_time(
        threads in 1_usize..5,
        costs in prop::collection::vec(10_u64..1_900, 300),
        which in prop::collection::vec(any::<usize>(), 300),
    ) {
        let mut queue = known([0, 1, 2]);
        let tenants = [0_u8, 1, 2];
        for job in 0..300 {
            for tenant in tenants {
                queue.push(&tenant, job);
            }
        }
        let mut spent = [Duration::ZERO; 3];
        let mut under_way: Vec<Under> = Vec::new();
        for (cost, which) in costs.into_iter().zip(which) {
            while under_way.len() < threads {
                let turn = queue.pop(Lane::Fast).expect("all have jobs waiting");
                under_way.push(turn.split().0);
            }
            let turn = under_way.swap_remove(which % under_way.len());
            let cost = Duration::from_micros(cost);
            spent[usize::from(turn.tenant)] += cost;
            queue.end(turn, Some(cost));
            let (least, most) = (spent.iter().min().unwrap(), spent.iter().max().unwrap());
            let bound = NEVER_EXPENSIVE * u32::try_from(2 * (threads + 1)).unwrap();
            prop_assert!(*most - *least <= bound, "{spent:?}");
        }
    }
}
