#[test]
fn t() {
    for unit in ["`a` ", "word **b** c\n", "> **a** *b*\n", "* a\n", "plain words and more ", "[a](https://x.example) ", "**", "`", "[", "> "] {
        let text = unit.repeat(1024*1024/unit.len());
        let s = std::time::Instant::now();
        let r = kai_gateway::markdown::render(&text);
        let a = s.elapsed();
        let s = std::time::Instant::now();
        let p = kai_gateway::split::split(&r, 4096);
        println!("{unit:?} render {a:?} split {:?} parts {} entities {}", s.elapsed(), p.len(), r.entities.len());
    }
}
