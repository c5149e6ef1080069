package iamflow

import (
	"fmt"
	"strings"
	"sync"
)

// outputs are what all runs of the binary have said, but for those that were asked to print the key.
var outputs struct {
	sync.Mutex
	said []string
}

func noteOutput(text string) {
	outputs.Lock()
	defer outputs.Unlock()
	outputs.said = append(outputs.said, text)
}

// leaked finds secrets in what was said.
func leaked() error {
	for _, said := range outputs.said {
		for _, secret := range secrets.seen {
			if i := strings.Index(said, secret); i >= 0 {
				return fmt.Errorf("a secret was shown after: %s", said[max(0, i-200):i])
			}
		}
	}
	return nil
}
