package castai

import (
	"encoding/json"
	"html"
	"io"
	"net/url"
	"strconv"
	"strings"
	"unicode"
)

const (
	// excerptLimit is how much of a response an error repeats, in characters.
	excerptLimit = 200

	// minPrefix is the shortest prefix of a key that is redacted at the end of a truncated text.
	minPrefix = 4

	redacted = "[redacted]"
)

// beginning reads a body up to bodyLimit; cut means that it was longer.
func beginning(body io.Reader) (text string, cut bool) {
	read, err := io.ReadAll(io.LimitReader(body, bodyLimit+1))
	return string(read[:min(len(read), bodyLimit)]), err != nil || len(read) > bodyLimit
}

// excerpt returns the beginning of a text in one printable line, without the key, in whatever encoding a server or proxy
// repeats it.
//
// It redacts the key first, before anything is cut or joined. It replaces unprintable characters with spaces instead of
// removing them, which could join two halves of a key.
func excerpt(text string, cut bool, key string) string {
	for _, form := range forms(key) {
		text = strings.ReplaceAll(text, form, redacted)
		for n := len(form) - 1; cut && n >= minPrefix; n-- {
			if before, ok := strings.CutSuffix(text, form[:n]); ok {
				text = before + redacted
			}
		}
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	line := []rune(strings.Join(strings.Fields(text), " "))
	if len(line) > excerptLimit {
		return string(line[:excerptLimit]) + "…"
	}
	return string(line)
}

// forms returns the encodings of a key.
func forms(key string) []string {
	safe, _ := json.Marshal(key) // a string always can be
	plain := strconv.Quote(key)  // JSON that need not be safe in HTML; an error of Go's
	return []string{key, string(safe[1 : len(safe)-1]), plain[1 : len(plain)-1], url.QueryEscape(key), url.PathEscape(key), html.EscapeString(key)}
}
