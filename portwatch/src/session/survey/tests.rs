//! Listeners that were there before, runs that were cut off, and more listeners than are remembered.

use super::*;
use crate::event::{Event, Kind, Origin, Proto};
use crate::row::{Row as TableRow, State};
use crate::session::{self, About, Finish, Kept, Run, Writer};

const SECOND: u64 = 1_000_000_000;

fn event(kind: Kind, second: u64, port: u16, sock: u64) -> Event {
    let mut event = Event::new(kind, Origin::Live, second * SECOND);
    event.proto = Some(Proto::Tcp);
    event.laddr = Some("0.0.0.0".parse().unwrap());
    (event.lport, event.sock) = (Some(port), Some(sock));
    event
}

fn kept(port: u16, sock: u64, state: State) -> Kept {
    Kept {
        row: TableRow {
            event: event(Kind::Listen, 1, port, sock),
            state,
            since: None,
            recv_queue: None,
            send_queue: None,
            device: None,
            v6only: None,
        },
        bound: true,
        told: true,
    }
}

fn survey(fill: impl Fn(&mut Writer<'_>)) -> Survey {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let db = session::create(&path).unwrap();
    let mut writer = Writer::new(&db, Box::new(|_, _| About::default())).unwrap();
    fill(&mut writer);
    writer.commit(None).unwrap();
    Survey::of(&Session::open(&path).unwrap(), |_| {}).unwrap()
}

fn run(began: u64) -> Run {
    Run {
        began: began * SECOND,
        ..Run::default()
    }
}

fn finish(ended: u64) -> Finish {
    Finish {
        ended: ended * SECOND,
        reason: String::new(),
        complete: true,
        accounts: "{}".into(),
    }
}

#[test]
fn what_listened_before_is_there_from_the_start_of_its_run() {
    let survey = survey(|writer| {
        writer.begin(&run(100)).unwrap();
        let all = [
            kept(80, 1, State::Listen),
            kept(81, 2, State::Listen),
            kept(82, 3, State::Estab),
        ];
        writer.checkpoint(100 * SECOND, all).unwrap();
        writer.event(&event(Kind::Close, 150, 80, 1)).unwrap();
        // It listens already.
        writer.event(&event(Kind::Listen, 155, 81, 2)).unwrap();
        // Later checkpoints tell nothing new.
        writer
            .checkpoint(160 * SECOND, [kept(81, 2, State::Listen)])
            .unwrap();
        writer.event(&event(Kind::Listen, 180, 83, 4)).unwrap();
        writer.commit(None).unwrap();
        writer.begin(&run(250)).unwrap();
        writer
            .checkpoint(250 * SECOND, [kept(81, 2, State::Listen)])
            .unwrap();
        writer.finish(&finish(300)).unwrap();
    });
    assert_eq!(survey.span, 100 * SECOND..300 * SECOND);
    assert_eq!(
        survey.gaps,
        std::slice::from_ref(&(180 * SECOND..250 * SECOND))
    );
    let bar = |from, to| Bar {
        from,
        to,
        short: false,
    };
    let lives: Vec<_> = survey
        .listeners
        .shown
        .rows
        .iter()
        .map(|x| {
            (
                x.port.unwrap(),
                x.seeded,
                x.open,
                x.lived / SECOND,
                x.bars.clone(),
            )
        })
        .collect();
    assert_eq!(
        lives,
        [
            (80, true, false, 50, vec![bar(0, 250)]),
            (81, true, true, 130, vec![bar(0, 400), bar(750, 1000)]),
            // Cut off at the moment that it came.
            (83, false, true, 0, vec![bar(400, 400)]),
        ]
    );
    assert_eq!((survey.listeners.lives, survey.listeners.short.of), (4, 0));
}

#[test]
fn short_lives_stand_out_and_long_ones_outlast_them_in_memory() {
    const MANY: u16 = 9_000;
    let survey = survey(|writer| {
        writer.begin(&run(0)).unwrap();
        for number in 0..MANY {
            let sock = u64::from(number);
            let (port, second) = (1_000 + number, 1 + sock);
            writer
                .event(&event(Kind::Listen, second, port, sock))
                .unwrap();
            let lives = if number == 10 { SECOND } else { SECOND - 1 };
            let mut close = event(Kind::Close, second, port, sock);
            close.ts += lives;
            writer.event(&close).unwrap();
        }
        writer.finish(&finish(10_000)).unwrap();
    });
    let listeners = &survey.listeners;
    assert_eq!(
        (listeners.lives, listeners.short.of),
        (u64::from(MANY), u64::from(MANY) - 1)
    );
    assert_eq!(listeners.shown.of, u64::from(MANY));
    let long = listeners
        .shown
        .rows
        .iter()
        .find(|x| x.port == Some(1_010))
        .unwrap();
    assert_eq!((long.lived, long.short_lives), (SECOND, 0));
    let last = listeners.short.rows.last().unwrap();
    assert_eq!(
        last.listener.port,
        Some(1_000 + MANY - 1),
        "the latest are listed"
    );
}
