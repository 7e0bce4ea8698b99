//! What users write, and what they are told when it is wrong.

use nneinfact_table::{Filter, Function, Modes};

#[test]
fn modes_are_read() {
    let text = "w=week(time),h = hour( time ) ,i=bin(lat,100),j=bin(lon,-74.3:-73.7:0.01),\
                pick up,x='a,\"b(',top(carrier,5),t=top(carrier,5,other),round(price,-2)";
    let modes = Modes::parse(text).unwrap();
    let list = modes.as_slice();
    assert_eq!(list.len(), 9);
    assert_eq!(list[0].letter, Some('w'));
    assert_eq!(list[1].column, "time");
    assert_eq!(list[2].function, Function::Bins(100));
    assert!(matches!(list[3].function, Function::Range { bins: 60, .. }));
    assert_eq!((list[4].column.as_str(), list[4].letter), ("pick up", None));
    assert_eq!(list[5].column, "a,\"b(");
    assert_eq!(list[6].function, Function::Top { count: 5, other: false });
    assert_eq!(list[7].function, Function::Top { count: 5, other: true });
    assert_eq!(list[8].function, Function::Round(-2));
    assert_eq!(Modes::parse(&modes.to_string()).unwrap(), modes);
    assert_eq!(modes.names()[6..8], ["top(carrier,5)", "top(carrier,5,other)"]);
}

#[test]
fn mistakes_have_carets() {
    let of = |text: &str| Modes::parse(text).unwrap_err().to_string();
    assert_eq!(
        of("a,hours(time)"),
        "hours is not a function: there are year, yearmonth, month, week, date, weekday, hour, minute, bin, top, round and prefix\n  \
         a,hours(time)\n    ^^^^^"
    );
    assert_eq!(
        of("wk=week(time)"),
        "one letter, A–Z or a–z, stands before the =\n  wk=week(time)\n  ^^"
    );
    assert_eq!(of("w=a,w=b"), "the letter w is there twice\n  w=a,w=b\n      ^^^");
    assert_eq!(of("a,a"), "this mode is there twice\n  a,a\n    ^");
    assert!(of("bin(x,0)").ends_with("\n  bin(x,0)\n        ^"));
    assert!(of("bin(x,1:2)").ends_with("\n  bin(x,1:2)\n        ^^^"));
    assert!(of("bin(x,2:1:1)").contains("from must be below to"));
    assert!(of("bin(x,0:1:0.3)").contains("1.2 would be, or the step 0.25"));
    assert!(of("top(x,5,rest)").ends_with("\n          ^^^^"));
    assert!(of("round(x,99)").contains("from -15 to 15"));
    assert!(of("hour(time,3)").contains("nothing else"));
    assert!(of("hour(time").contains("not closed"));
    assert!(of("'a,b").contains("quote is not closed"));
    assert!(of("a,,b").ends_with("\n  a,,b\n    ^"));
    assert!(of("a)b").ends_with("\n  a)b\n   ^"));
    assert!(of(" ").starts_with("no modes"));
    for text in
        ["", ",", "=", "w=", "w=()", "bin", "bin(", "bin(x", "bin(x,", "(", ")", "a=b=c", "é=x"]
    {
        let _ = Modes::parse(text);
    }
}

#[test]
fn filters_are_read() {
    let filter = Filter::parse("year>=2010 and `the name` != 'it''s' AND x == .5").unwrap();
    assert_eq!(filter.columns().collect::<Vec<_>>(), ["year", "the name", "x"]);
    assert_eq!(Filter::parse(&filter.to_string()).unwrap(), filter);
    let of = |text: &str| Filter::parse(text).unwrap_err().to_string();
    assert!(of("year => 3").ends_with("\n  year => 3\n       ^^"));
    assert!(of("a = 1 or b = 2").ends_with("\n        ^^"));
    assert!(of("a =").contains("a number or a text"));
    assert!(of("").contains("begins with a column"));
    assert!(of("home country = US").contains("quoted"));
}
