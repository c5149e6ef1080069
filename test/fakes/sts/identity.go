package sts

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
)

// Identity is a principal known to STS, with its credentials.
type Identity struct {
	ARN    string // arn:aws:iam::<account>:user/<name>, or arn:aws:sts::<account>:assumed-role/<role>/<session>
	UserID string // AIDA…, or AROA…:<session>

	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string // every request with the key must carry it; empty for a user's long-term key
}

// User returns an IAM user with a new long-term key.
func User(account, name string) Identity {
	return Identity{
		ARN:             fmt.Sprintf("arn:aws:iam::%s:user/%s", account, name),
		UserID:          newID("AIDA"),
		AccessKeyID:     newID("AKIA"),
		SecretAccessKey: newSecret(30),
	}
}

// RoleSession returns a session of an IAM role with new temporary credentials. The session of a Lambda function's role
// has the function's name. A session's ARN does not include the role's path: pass only the name.
func RoleSession(account, role, session string) Identity {
	return Identity{
		ARN:             fmt.Sprintf("arn:aws:sts::%s:assumed-role/%s/%s", account, role, session),
		UserID:          newID("AROA") + ":" + session,
		AccessKeyID:     newID("ASIA"),
		SecretAccessKey: newSecret(30),
		SessionToken:    newSecret(768), // 1,024 characters, similar to Lambda's
	}
}

func (i Identity) account() string { return strings.Split(i.ARN+"::::", ":")[4] }

// newID returns an identifier like IAM's: a prefix and 16 letters and digits.
func newID(kind string) string { return kind + rand.Text()[:16] }

// newSecret returns a text with characters that URLs must escape, as in AWS's secrets and tokens: +, / and =.
func newSecret(size int) string {
	random := make([]byte, size)
	rand.Read(random) // never fails
	return base64.StdEncoding.EncodeToString(random)
}
