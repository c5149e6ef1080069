package page

import (
	"regexp"
	"strings"
	"testing"
)

// TestPage: names come from tags of the account, and must not become markup. The page loads nothing and runs nothing,
// and its colors are those of the browser's light or dark mode.
func TestPage(t *testing.T) {
	const evil = `<script>alert("a")</script>"><img onerror=x src=//e.example>`
	p := New(evil, []string{evil, "a < b"})
	for _, horizontal := range []bool{true, false} {
		if err := p.Chart(Chart{Title: evil, Names: []string{evil, "b"}, Horizontal: horizontal, Stacked: horizontal, Unit: evil,
			Series: []Series{{evil, Red, []float64{1, 2000}}, {"s", Blue, []float64{0, 3}}}}); err != nil {
			t.Fatal(err)
		}
	}
	p.Heading(evil)
	p.Text(evil, evil)
	p.Table([]string{"", evil}, Section{Rows: [][]string{{evil, "1"}}}, Section{Heading: evil, Rows: [][]string{{"a", evil}}}, Section{Heading: "no rows"})
	var b strings.Builder
	if _, err := p.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if n := strings.Count(text, "&lt;script&gt;alert("); n < 15 { // title twice, notice, charts, heading, text twice, table
		t.Errorf("the name is there %d times in\n%s", n, text)
	}
	if strings.Count(text, "<svg ") != 2 || !strings.Contains(text, "a &lt; b") || strings.Contains(text, "no rows") || strings.Contains(text, "%!") ||
		!strings.HasSuffix(text, "</html>\n") {
		t.Errorf("got\n%s", text)
	}
	if fixed := regexp.MustCompile(`(?i)fill:#000000|#ffffff`).FindString(text); fixed != "" { // strokes are in the style sheet
		t.Errorf("%s would be the same in dark mode:\n%s", fixed, text)
	}
	for _, allowed := range []string{`xmlns="http://www.w3.org/2000/svg"`, `xmlns:xlink="http://www.w3.org/1999/xlink"`} {
		text = strings.ReplaceAll(text, allowed, "")
	}
	text = regexp.MustCompile(`>[^<]*<`).ReplaceAllString(text, "><") // text is no markup
	if bad := regexp.MustCompile(`(?i)<(script|link|img|iframe|object)|://|\bsrc=|href|url\(|@import|\bon\w+=|<\?xml`).FindString(text); bad != "" {
		t.Errorf("the page contains %q in\n%s", bad, text)
	}
}
