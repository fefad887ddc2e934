//! Sessions in the formats of others.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use expect_test::{Expect, expect};
use portwatch::view::lines::{Csv, Json as JsonLines};
use serde_json::Value as Json;

use super::{make, name, prints, says, session, shows};

#[test]
fn jsonl_and_csv_are_what_trace_prints() {
    let (folder, path) = session();
    let mut expected = Vec::new();
    let mut lines = JsonLines::new(None);
    make::events()
        .iter()
        .for_each(|event| lines.event(&mut expected, event));
    let expected = String::from_utf8(expected).unwrap();
    assert_eq!(prints(&["export", name(&path)]), expected);

    let mut csv = Csv::new(None, false);
    let mut table = Vec::new();
    csv.header(&mut table);
    make::events()
        .iter()
        .for_each(|event| csv.event(&mut table, event));
    let table = String::from_utf8(table).unwrap();
    assert_eq!(prints(&["export", name(&path), "--format", "csv"]), table);

    let file = folder.path().join("events.jsonl");
    let (code, stdout, stderr) = says(&["export", name(&path), "--write", name(&file)]);
    assert_eq!((code, stdout.as_str()), (0, ""));
    assert_eq!(stderr, "portwatch: 101 events written\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);

    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "others may read it");

    for there in [&path, &file] {
        let before = fs::read(there).unwrap();
        let (code, _, stderr) = says(&["export", name(&path), "--write", name(there)]);
        assert_eq!(code, 1);
        let expected = format!("{} is there already: name another", name(there));
        assert!(stderr.contains(&expected), "{stderr}");
        assert!(fs::read(there).unwrap() == before, "it was touched");
    }
    // what is no file takes what is written
    for stdout in ["-", "/dev/stdout"] {
        let args = ["export", name(&path), "--write", stdout];
        assert_eq!(says(&args).1, expected);
    }
    assert_eq!(says(&["export", name(&path), "--write", "/dev/null"]).0, 0);
}

#[test]
fn filters_are_those_of_trace() {
    let (_folder, path) = session();
    let count = |args: &[&str]| {
        let args = [&["export", name(&path)], args].concat();
        // A loss is always told.
        prints(&args)
            .lines()
            .filter(|x| !x.contains("\"lost\""))
            .count()
    };
    assert_eq!(count(&[]), 100);
    assert_eq!(count(&["-e", "connect"]), 24);
    assert_eq!(count(&["--failed"]), 1);
    assert_eq!(count(&["-p", "4243"]), 48);
    assert_eq!(count(&["-P", "40003"]), 4);
    assert_eq!(
        count(&["--filter", "event == 'close' && accepted == 24"]),
        1
    );
    let (code, _, stderr) = says(&["export", name(&path), "--filter", "lport +"]);
    assert_eq!(code, 2, "{stderr}");
}

#[test]
fn since_and_until_choose_a_part_and_directions_are_known_from_before() {
    let (_folder, path) = session();
    // the closes of the second connection, which was accepted at 21 ms
    let part = [
        "--since",
        "2026-11-23T03:12:00.024Z",
        "--until",
        "2026-11-23T03:12:00.025Z",
    ];
    let text = prints(&[&["export", name(&path), "--format", "ecs"][..], &part].concat());
    let events: Vec<Json> = text
        .lines()
        .map(|x| serde_json::from_str(x).unwrap())
        .collect();
    let shown: Vec<_> = (events.iter())
        .map(|x| (&x["event"]["sequence"], &x["network"]["direction"]))
        .collect();
    assert_eq!(
        shown,
        [
            (&10.into(), &"ingress".into()),
            (&11.into(), &"egress".into())
        ]
    );
    let lines = prints(&[&["export", name(&path)][..], &part].concat());
    let seqs: Vec<Json> = (lines.lines())
        .map(|x| serde_json::from_str::<Json>(x).unwrap()["seq"].clone())
        .collect();
    assert_eq!(seqs, [10, 11]);
    let (code, _, stderr) = says(&["export", name(&path), "--since", "noon"]);
    assert_eq!(code, 2, "{stderr}");
}

#[test]
fn each_run_counts_from_one_and_knows_its_host() {
    let (_folder, path) = session();
    make::run(
        &portwatch::session::append(&path, None).unwrap(),
        None,
        true,
    );
    let text = prints(&["export", name(&path), "-e", "listen", "--format", "ecs"]);
    let events: Vec<Json> = text
        .lines()
        .map(|x| serde_json::from_str(x).unwrap())
        .collect();
    let events: Vec<&Json> = events
        .iter()
        .filter(|x| x["event"]["action"] == "listen")
        .collect();
    assert_eq!(events.len(), 2);
    for event in events {
        assert_eq!(event["event"]["sequence"], 2);
        assert_eq!(event["host"]["name"], "db1");
    }
}

/// The events with these numbers.
fn check(format: &str, numbers: &[usize], expected: Expect) {
    let (_folder, path) = session();
    let text = prints(&["export", name(&path), "--format", format]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 101);
    let shown: Vec<&str> = numbers.iter().map(|number| lines[number - 1]).collect();
    expected.assert_eq(&(shown.join("\n") + "\n"));
}

#[test]
fn ecs_documents() {
    check(
        "ecs",
        &[2, 3, 4, 6, 100],
        expect![[r#"
            {"@timestamp":"2026-11-23T03:12:00.001000000Z","agent":{"type":"portwatch","version":"0.1.0"},"destination":{"ip":"10.0.0.1","port":80},"ecs":{"version":"8.11.0"},"event":{"action":"listen","category":["network"],"dataset":"portwatch.events","kind":"event","module":"portwatch","outcome":"success","sequence":2,"type":["start"]},"host":{"architecture":"x86_64","boot":{"id":"11111111-2222-3333-4444-555555555555"},"hostname":"db1","name":"db1","os":{"kernel":"6.18.0","type":"linux"}},"network":{"iana_number":"6","transport":"tcp","type":"ipv4"},"portwatch":{"backlog":511,"cgroup":"/system.slice/nginx.service","family":"ipv4","netns":4026531840,"origin":"live","parents":[{"name":"systemd","pid":1}],"proto":"tcp","service":"http","sock":"7","unit":"nginx.service"},"process":{"args":["nginx","-g","daemon off;"],"args_count":3,"executable":"/usr/sbin/nginx","name":"nginx","parent":{"name":"systemd","pid":1},"pid":812,"thread":{"id":812}},"related":{"ip":["10.0.0.1"],"user":["root"]},"server":{"ip":"10.0.0.1","port":80},"user":{"group":{"id":"0"},"id":"0","name":"root"}}
            {"@timestamp":"2026-11-23T03:12:00.002000000Z","agent":{"type":"portwatch","version":"0.1.0"},"ecs":{"version":"8.11.0"},"error":{"code":"EADDRINUSE"},"event":{"action":"bind","category":["network"],"dataset":"portwatch.events","kind":"event","module":"portwatch","outcome":"failure","sequence":3,"type":["info"]},"host":{"architecture":"x86_64","boot":{"id":"11111111-2222-3333-4444-555555555555"},"hostname":"db1","name":"db1","os":{"kernel":"6.18.0","type":"linux"}},"network":{"iana_number":"6","transport":"tcp","type":"ipv4"},"portwatch":{"family":"ipv4","holders":[{"name":"nginx","pid":812,"sock":"7"}],"netns":4026531840,"origin":"live","proto":"tcp"},"process":{"args":["=cmd|' /C calc'!A0","\u001b[2J\n,\""],"args_count":2,"executable":"/tmp/\u202egpj.x","name":"\u001b]0;x\u0007\\xff","parent":{"pid":1},"pid":4242,"thread":{"id":4242}},"related":{"ip":["10.0.0.1"]},"source":{"ip":"10.0.0.1","port":80},"user":{"group":{"id":"0"},"id":"0"}}
            {"@timestamp":"2026-11-23T03:12:00.010000000Z","agent":{"type":"portwatch","version":"0.1.0"},"client":{"ip":"10.0.0.2","port":40000},"container":{"id":"0123456789ab"},"destination":{"ip":"10.0.0.1","port":80},"ecs":{"version":"8.11.0"},"event":{"action":"connect","category":["network"],"dataset":"portwatch.events","kind":"event","module":"portwatch","outcome":"success","sequence":4,"type":["connection","start"]},"host":{"architecture":"x86_64","boot":{"id":"11111111-2222-3333-4444-555555555555"},"hostname":"db1","name":"db1","os":{"kernel":"6.18.0","type":"linux"}},"network":{"direction":"egress","iana_number":"6","transport":"tcp","type":"ipv4"},"portwatch":{"family":"ipv4","latency_us":90,"netns":4026531840,"origin":"live","parents":[{"name":"bash","pid":4000},{"name":"sshd","pid":3999}],"proto":"tcp","sock":"1000"},"process":{"args":["curl","http://10.0.0.1/"],"args_count":2,"executable":"/usr/bin/curl","name":"curl","parent":{"name":"bash","pid":4000},"pid":4243,"thread":{"id":4243}},"related":{"ip":["10.0.0.2","10.0.0.1"],"user":["alice"]},"server":{"ip":"10.0.0.1","port":80},"source":{"ip":"10.0.0.2","port":40000},"user":{"group":{"id":"1000"},"id":"1000","name":"alice"}}
            {"@timestamp":"2026-11-23T03:12:00.014000000Z","agent":{"type":"portwatch","version":"0.1.0"},"client":{"bytes":78,"ip":"10.0.0.2","port":40000},"destination":{"bytes":4400,"ip":"10.0.0.1","port":80},"ecs":{"version":"8.11.0"},"event":{"action":"close","category":["network"],"dataset":"portwatch.events","duration":3000000,"end":"2026-11-23T03:12:00.014000000Z","kind":"event","module":"portwatch","outcome":"success","sequence":6,"start":"2026-11-23T03:12:00.011000000Z","type":["connection","end"]},"host":{"architecture":"x86_64","boot":{"id":"11111111-2222-3333-4444-555555555555"},"hostname":"db1","name":"db1","os":{"kernel":"6.18.0","type":"linux"}},"network":{"bytes":4478,"direction":"ingress","iana_number":"6","transport":"tcp","type":"ipv4"},"portwatch":{"cause":"local","cgroup":"/system.slice/nginx.service","family":"ipv4","netns":4026531840,"origin":"live","parents":[{"name":"systemd","pid":1}],"proto":"tcp","sock":"18446744073709551615","unit":"nginx.service"},"process":{"args":["nginx","-g","daemon off;"],"args_count":3,"executable":"/usr/sbin/nginx","name":"nginx","parent":{"name":"systemd","pid":1},"pid":812,"thread":{"id":812}},"related":{"ip":["10.0.0.1","10.0.0.2"],"user":["root"]},"server":{"bytes":4400,"ip":"10.0.0.1","port":80},"source":{"bytes":78,"ip":"10.0.0.2","port":40000},"user":{"group":{"id":"0"},"id":"0","name":"root"}}
            {"@timestamp":"2026-11-23T03:12:00.300000000Z","agent":{"type":"portwatch","version":"0.1.0"},"ecs":{"version":"8.11.0"},"event":{"action":"lost","dataset":"portwatch.events","kind":"pipeline_error","module":"portwatch","outcome":"unknown","sequence":100},"host":{"architecture":"x86_64","boot":{"id":"11111111-2222-3333-4444-555555555555"},"hostname":"db1","name":"db1","os":{"kernel":"6.18.0","type":"linux"}},"message":"12 events lost","portwatch":{"count":12,"origin":"live"}}
        "#]],
    );
}

#[test]
fn ocsf_events() {
    check(
        "ocsf",
        &[2, 3, 4, 6, 100],
        expect![[r#"
            {"activity_id":7,"activity_name":"Listen","actor":{"process":{"ancestry":[{"name":"systemd","pid":1}],"cmd_line":"nginx -g 'daemon off;'","file":{"name":"nginx","path":"/usr/sbin/nginx","type":"Regular File","type_id":1},"name":"nginx","parent_process":{"name":"systemd","pid":1},"pid":812,"tid":812,"user":{"groups":[{"uid":"0"}],"name":"root","uid":"0"}}},"category_name":"Network Activity","category_uid":4,"class_name":"Network Activity","class_uid":4001,"connection_info":{"direction":"Unknown","direction_id":0,"protocol_name":"tcp","protocol_num":6,"protocol_ver_id":4,"uid":"7"},"device":{"boot_uid":"11111111-2222-3333-4444-555555555555","hostname":"db1","os":{"kernel_release":"6.18.0","name":"Linux","type":"Linux","type_id":200},"type":"Unknown","type_id":0},"dst_endpoint":{"ip":"10.0.0.1","port":80},"metadata":{"original_time":"2026-11-23T03:12:00.001000000Z","product":{"name":"portwatch","vendor_name":"portwatch","version":"0.1.0"},"profiles":["container","host"],"sequence":2,"version":"1.5.0"},"severity":"Informational","severity_id":1,"status":"Success","status_id":1,"time":1795403520001,"type_name":"Network Activity: Listen","type_uid":400107,"unmapped":{"args":["nginx","-g","daemon off;"],"backlog":511,"cgroup":"/system.slice/nginx.service","event":"listen","family":"ipv4","netns":4026531840,"origin":"live","proto":"tcp","service":"http","unit":"nginx.service"}}
            {"activity_id":99,"activity_name":"Bind","actor":{"process":{"cmd_line":"'=cmd|'\\'' /C calc'\\''!A0' '\u001b[2J\n,\"'","file":{"name":"\u202egpj.x","path":"/tmp/\u202egpj.x","type":"Regular File","type_id":1},"name":"\u001b]0;x\u0007\\xff","parent_process":{"pid":1},"pid":4242,"tid":4242,"user":{"groups":[{"uid":"0"}],"uid":"0"}}},"category_name":"Network Activity","category_uid":4,"class_name":"Network Activity","class_uid":4001,"connection_info":{"direction":"Unknown","direction_id":0,"protocol_name":"tcp","protocol_num":6,"protocol_ver_id":4},"device":{"boot_uid":"11111111-2222-3333-4444-555555555555","hostname":"db1","os":{"kernel_release":"6.18.0","name":"Linux","type":"Linux","type_id":200},"type":"Unknown","type_id":0},"metadata":{"original_time":"2026-11-23T03:12:00.002000000Z","product":{"name":"portwatch","vendor_name":"portwatch","version":"0.1.0"},"profiles":["container","host"],"sequence":3,"version":"1.5.0"},"severity":"Informational","severity_id":1,"src_endpoint":{"ip":"10.0.0.1","port":80},"status":"Failure","status_code":"EADDRINUSE","status_id":2,"time":1795403520002,"type_name":"Network Activity: Other","type_uid":400199,"unmapped":{"args":["=cmd|' /C calc'!A0","\u001b[2J\n,\""],"event":"bind","family":"ipv4","holders":[{"name":"nginx","pid":812,"sock":"7"}],"netns":4026531840,"origin":"live","proto":"tcp"}}
            {"activity_id":1,"activity_name":"Open","actor":{"process":{"ancestry":[{"name":"bash","pid":4000},{"name":"sshd","pid":3999}],"cmd_line":"curl http://10.0.0.1/","container":{"uid":"0123456789ab"},"file":{"name":"curl","path":"/usr/bin/curl","type":"Regular File","type_id":1},"name":"curl","parent_process":{"name":"bash","pid":4000},"pid":4243,"tid":4243,"user":{"groups":[{"uid":"1000"}],"name":"alice","uid":"1000"}}},"category_name":"Network Activity","category_uid":4,"class_name":"Network Activity","class_uid":4001,"connection_info":{"direction":"Outbound","direction_id":2,"protocol_name":"tcp","protocol_num":6,"protocol_ver_id":4,"uid":"1000"},"device":{"boot_uid":"11111111-2222-3333-4444-555555555555","hostname":"db1","os":{"kernel_release":"6.18.0","name":"Linux","type":"Linux","type_id":200},"type":"Unknown","type_id":0},"dst_endpoint":{"ip":"10.0.0.1","port":80},"metadata":{"original_time":"2026-11-23T03:12:00.010000000Z","product":{"name":"portwatch","vendor_name":"portwatch","version":"0.1.0"},"profiles":["container","host"],"sequence":4,"version":"1.5.0"},"severity":"Informational","severity_id":1,"src_endpoint":{"ip":"10.0.0.2","port":40000},"status":"Success","status_id":1,"time":1795403520010,"type_name":"Network Activity: Open","type_uid":400101,"unmapped":{"args":["curl","http://10.0.0.1/"],"event":"connect","family":"ipv4","latency_us":90,"netns":4026531840,"origin":"live","proto":"tcp"}}
            {"activity_id":2,"activity_name":"Close","actor":{"process":{"ancestry":[{"name":"systemd","pid":1}],"cmd_line":"nginx -g 'daemon off;'","file":{"name":"nginx","path":"/usr/sbin/nginx","type":"Regular File","type_id":1},"name":"nginx","parent_process":{"name":"systemd","pid":1},"pid":812,"tid":812,"user":{"groups":[{"uid":"0"}],"name":"root","uid":"0"}}},"category_name":"Network Activity","category_uid":4,"class_name":"Network Activity","class_uid":4001,"connection_info":{"direction":"Inbound","direction_id":1,"protocol_name":"tcp","protocol_num":6,"protocol_ver_id":4,"uid":"18446744073709551615"},"device":{"boot_uid":"11111111-2222-3333-4444-555555555555","hostname":"db1","os":{"kernel_release":"6.18.0","name":"Linux","type":"Linux","type_id":200},"type":"Unknown","type_id":0},"dst_endpoint":{"ip":"10.0.0.1","port":80},"duration":3,"end_time":1795403520014,"metadata":{"original_time":"2026-11-23T03:12:00.014000000Z","product":{"name":"portwatch","vendor_name":"portwatch","version":"0.1.0"},"profiles":["container","host"],"sequence":6,"version":"1.5.0"},"severity":"Informational","severity_id":1,"src_endpoint":{"ip":"10.0.0.2","port":40000},"start_time":1795403520011,"status":"Success","status_id":1,"time":1795403520014,"traffic":{"bytes":4478,"bytes_in":4400,"bytes_out":78},"type_name":"Network Activity: Close","type_uid":400102,"unmapped":{"args":["nginx","-g","daemon off;"],"cause":"local","cgroup":"/system.slice/nginx.service","event":"close","family":"ipv4","netns":4026531840,"origin":"live","proto":"tcp","unit":"nginx.service"}}
            {"activity_id":99,"activity_name":"Lost","category_name":"Uncategorized","category_uid":0,"class_name":"Base Event","class_uid":0,"device":{"boot_uid":"11111111-2222-3333-4444-555555555555","hostname":"db1","os":{"kernel_release":"6.18.0","name":"Linux","type":"Linux","type_id":200},"type":"Unknown","type_id":0},"message":"12 events lost","metadata":{"original_time":"2026-11-23T03:12:00.300000000Z","product":{"name":"portwatch","vendor_name":"portwatch","version":"0.1.0"},"profiles":["container","host"],"sequence":100,"version":"1.5.0"},"severity":"Medium","severity_id":3,"status":"Unknown","status_id":0,"time":1795403520300,"type_name":"Base Event: Other","type_uid":99,"unmapped":{"count":12,"event":"lost","origin":"live"}}
        "#]],
    );
}

#[test]
fn hostile_names_reach_no_terminal() {
    let (_folder, path) = session();
    for format in ["jsonl", "csv", "ecs", "ocsf"] {
        let args = ["export", name(&path), "--format", format];
        let text = match format {
            // Elsewhere it is exact.
            "csv" => shows(&args),
            _ => prints(&args),
        };
        let deceptive = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!text.contains(deceptive), "{format}");
    }
}

#[test]
fn without_parquet_it_says_how_to_have_it() {
    let (folder, path) = session();
    let file = folder.path().join("events.parquet");
    let (code, _, stderr) = says(&[
        "export",
        name(&path),
        "--format",
        "parquet",
        "--write",
        name(&file),
    ]);
    if cfg!(feature = "parquet") {
        assert_eq!(
            (code, stderr.as_str()),
            (0, "portwatch: 101 events written\n")
        );
        let written = fs::read(&file).unwrap();
        assert!(written.starts_with(b"PAR1") && written.ends_with(b"PAR1"));
    } else {
        assert_eq!(code, 2);
        assert!(stderr.contains("--features parquet"), "{stderr}");
        assert!(!file.exists());
    }
}

#[test]
fn a_damaged_session_is_no_shorter_one() {
    let (_folder, path) = session();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("DELETE FROM raw_event WHERE id > 50")
        .unwrap();
    drop(db);
    let (code, stdout, stderr) = says(&["export", name(&path)]);
    assert_eq!((code, stdout.lines().count()), (1, 50), "{stderr}");
    assert!(stderr.contains("event 51 is missing"), "{stderr}");
}
