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

// outputs are the outputs of all commands except those with --print-credentials. secrets are the secrets in requests
// and responses.
var outputs, secrets texts

type texts struct {
	sync.Mutex
	seen []string
}

func (t *texts) add(text string) {
	t.Lock()
	defer t.Unlock()
	t.seen = append(t.seen, text)
}

func (t *texts) all() []string {
	t.Lock()
	defer t.Unlock()
	return slices.Clone(t.seen)
}

func recordSecret(s string) {
	if len(s) >= 16 {
		secrets.add(s)
	}
}

var token = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{20}`)

// leaked searches the outputs for secrets.
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

// recordSecrets records the secrets of access keys in responses.
func recordSecrets(resp *http.Response) error {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	for _, m := range secretKey.FindAllStringSubmatch(string(body), -1) {
		recordSecret(m[1])
	}
	return nil
}

// recordStored records the values that are stored in Secrets Manager.
func recordStored(action string, body []byte) {
	var in struct{ SecretString string }
	if action != "secretsmanager:PutSecretValue" || json.Unmarshal(body, &in) != nil {
		return
	}
	var texts map[string]string
	if json.Unmarshal([]byte(in.SecretString), &texts) == nil {
		recordSecret(texts["secretAccessKey"])
		recordSecret(texts["token"])
	}
}
