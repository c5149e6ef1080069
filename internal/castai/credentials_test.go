package castai

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
)

const givenSecret = `{"accessKeyId":"AKIAEXAMPLEEXAMPLE00","secretAccessKey":"secretsecretsecret/secret+secret"}`

// answers is a console that responds with each of the codes in turn and repeats the request.
type answers struct {
	codes []int
	got   []*http.Request
	said  []string
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	a.got, a.said = append(a.got, r), append(a.said, string(body))
	w := httptest.NewRecorder()
	w.Header().Set("Location", "https://elsewhere.example.com/"+r.Header.Get("X-API-Key"))
	w.WriteHeader(a.codes[min(len(a.got), len(a.codes))-1])
	_, _ = w.Write(body)
	return w.Result(), nil
}

func TestSendCredentials(t *testing.T) {
	a := &answers{codes: []int{200}}
	g := Giving{URL: "https://api.example.com/credentials", Token: "token-of-the-console", UserAgent: "kops-spot/1",
		HTTP: &http.Client{Transport: a}}
	if err := g.Give(t.Context(), []byte(givenSecret)); err != nil {
		t.Fatal(err)
	}
	var body struct{ Credentials string }
	if err := json.Unmarshal([]byte(a.said[0]), &body); err != nil || body.Credentials != givenSecret {
		t.Errorf("it was sent %s: %v", a.said[0], err)
	}
	if r := a.got[0]; r.Method != http.MethodPost || r.URL.String() != g.URL || r.Header.Get("X-API-Key") != g.Token ||
		r.Header.Get("User-Agent") != g.UserAgent {
		t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
}

func TestSendCredentialsErrors(t *testing.T) {
	for name, c := range map[string]struct {
		codes []int
		want  string // in the error; empty for none
		tries int
	}{
		"the token is refused":  {[]int{401}, "it answers 401: make a new API access key", 1},
		"the address is wrong":  {[]int{404}, "it answers 404: take CASTAI_API_URL", 1},
		"the address redirects": {[]int{307}, "it answers 307: take CASTAI_API_URL", 1},
		"the request is wrong":  {[]int{400}, "it answers 400", 1},
		"unavailable once":      {[]int{503, 200}, "", 2},
		"unavailable":           {[]int{500}, "it answers 500", giveTries},
		"throttled twice":       {[]int{429, 429, 200}, "", 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &answers{codes: c.codes}
				g := Giving{URL: "https://api.example.com/credentials", Token: "token-of-the-console",
					HTTP: &http.Client{Transport: a}}
				err := g.Give(t.Context(), []byte(givenSecret))
				if len(a.got) != c.tries {
					t.Errorf("%d attempts", len(a.got))
				}
				if c.want == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("%v; want %q", err, c.want)
				}
				if refused := c.codes[0] < 500; errors.Is(err, ErrRefused) != refused {
					t.Errorf("permanent: %t; want %t", !refused, refused)
				}
				for _, secret := range []string{"secretsecret", g.Token} {
					if strings.Contains(err.Error(), secret) {
						t.Errorf("it contains a secret: %v", err)
					}
				}
			})
		})
	}
}

func TestCredentialsRequireHTTPS(t *testing.T) {
	for _, url := range []string{"http://api.example.com/x", "", "api.example.com"} {
		a := &answers{codes: []int{200}}
		g := Giving{URL: url, Token: "t", HTTP: &http.Client{Transport: a}}
		if err := g.Give(context.Background(), []byte(givenSecret)); err == nil || len(a.got) > 0 {
			t.Errorf("%q is accepted: %v", url, err)
		}
	}
	if err := (Giving{URL: "https://api.example.com/x", Token: "two\nlines"}).Check(); err == nil ||
		strings.Contains(err.Error(), "two") {
		t.Errorf("an invalid token: %v", err)
	}
}
