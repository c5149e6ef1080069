package iamflow

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"sync"
)

// secrets is all that went over the wire which nobody may see, from any test.
var secrets struct {
	sync.Mutex
	seen []string
}

func noteSecret(s string) {
	if len(s) < 16 {
		return
	}
	secrets.Lock()
	defer secrets.Unlock()
	secrets.seen = append(secrets.seen, s)
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
