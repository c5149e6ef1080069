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
	// excerptLimit is how much of what others have said an error repeats, in characters.
	excerptLimit = 200

	// tellingPart is the shortest beginning of a key that is taken for one at the end of a text that breaks off.
	tellingPart = 4

	redacted = "[redacted]"
)

// beginning reads what there is of a body, up to bodyLimit; cut says that it goes on.
func beginning(body io.Reader) (text string, cut bool) {
	read, err := io.ReadAll(io.LimitReader(body, bodyLimit+1))
	return string(read[:min(len(read), bodyLimit)]), err != nil || len(read) > bodyLimit
}

// excerpt is the beginning of what somebody else has said, in one line of characters that can be printed, without the key,
// which a server or a proxy may repeat as it was sent or as JSON, a URL or HTML write it.
//
// The key goes first: what is cut or joined afterwards can show no part of it. What cannot be printed becomes a space and is
// not left out, so that two halves of a key do not meet either.
func excerpt(text string, cut bool, key string) string {
	for _, form := range forms(key) {
		text = strings.ReplaceAll(text, form, redacted)
		for n := len(form) - 1; cut && n >= tellingPart; n-- {
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

// forms are the ways in which a key may be written.
func forms(key string) []string {
	safe, _ := json.Marshal(key) // a string always can be
	plain := strconv.Quote(key)  // JSON that need not be safe in HTML; an error of Go's
	return []string{key, string(safe[1 : len(safe)-1]), plain[1 : len(plain)-1], url.QueryEscape(key), url.PathEscape(key), html.EscapeString(key)}
}
