package operator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// outputs are what all runs of the command line have said, but for those that were asked to print the key; secrets is all
// that went over the wire which nobody may see.
var outputs, secrets texts

type texts struct {
	sync.Mutex
	seen []string
}

func (t *texts) note(text string) {
	t.Lock()
	defer t.Unlock()
	t.seen = append(t.seen, text)
}

func (t *texts) all() []string {
	t.Lock()
	defer t.Unlock()
	return slices.Clone(t.seen)
}

func noteSecret(s string) {
	if len(s) >= 16 {
		secrets.note(s)
	}
}

var token = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{20}`)

// leaked finds secrets in what was said.
func leaked() error {
	for _, said := range outputs.all() {
		at := token.FindStringIndex(said)
		for _, secret := range secrets.all() {
			if i := strings.Index(said, secret); i >= 0 {
				at = []int{i}
			}
		}
		if at != nil {
			return fmt.Errorf("a secret was shown after: %s", said[max(0, at[0]-200):at[0]])
		}
	}
	return nil
}

var secretKey = regexp.MustCompile(`<SecretAccessKey>([^<]+)</SecretAccessKey>`)

// noteSecrets notes the secrets of access keys when AWS tells them.
func noteSecrets(resp *http.Response) error {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	for _, m := range secretKey.FindAllStringSubmatch(string(body), -1) {
		noteSecret(m[1])
	}
	return nil
}

// noteStored notes what is put into Secrets Manager, each text of it.
func noteStored(action string, body []byte) {
	var in struct{ SecretString string }
	if action != "secretsmanager:PutSecretValue" || json.Unmarshal(body, &in) != nil {
		return
	}
	var texts map[string]string
	if json.Unmarshal([]byte(in.SecretString), &texts) == nil {
		noteSecret(texts["secretAccessKey"])
		noteSecret(texts["token"])
	}
}
