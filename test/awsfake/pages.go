package awsfake

import (
	"fmt"
	"strconv"

	"github.com/castai/kops-spot/internal/sim"
)

// pageLimits are the least and the most that a page may be asked to hold, and the code of the refusal.
type pageLimits struct {
	least, most int
	code        string
}

// pageOf reads which part of all there is a call asks for. A token is where its page begins; without a limit, the rest.
func pageOf(limit, token string, l pageLimits) (from, to int, err error) {
	if token != "" {
		if from, err = atLeast(1, token, l.code); err != nil {
			return 0, 0, err
		}
	}
	if limit == "" {
		return from, -1, nil
	}
	n, err := atLeast(l.least, limit, l.code)
	if err != nil {
		return 0, 0, err
	}
	if n > l.most {
		return 0, 0, &sim.AWSError{Code: l.code, HTTPStatus: 400, Message: fmt.Sprintf("%d is more than %d", n, l.most)}
	}
	return from, from + n, nil
}

// cut is one page of all there is, and the token of the next, if there is one.
func cut[T any](all []T, from, to int) (page []T, next string) {
	from = min(from, len(all))
	if to < 0 || to >= len(all) {
		return all[from:], ""
	}
	return all[from:to], strconv.Itoa(to)
}

// nextToken is the element that tells of another page.
func nextToken(name, token string) []element {
	if token == "" {
		return nil
	}
	return []element{text(name, token)}
}
