mod made;
fn main() {
    let words: Vec<String> = std::env::args().collect();
    let truth = made::day(words[1].as_ref(), words[2].parse().unwrap());
    println!("{truth:?}");
}
