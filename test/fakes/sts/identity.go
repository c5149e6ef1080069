package sts

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
)

// Identity is somebody STS knows, with the credentials to prove it.
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

// RoleSession returns a session of an IAM role, with new temporary credentials. For a Lambda function's execution role
// the session is named after the function. A session's ARN has no room for the role's path: give its bare name.
func RoleSession(account, role, session string) Identity {
	return Identity{
		ARN:             fmt.Sprintf("arn:aws:sts::%s:assumed-role/%s/%s", account, role, session),
		UserID:          newID("AROA") + ":" + session,
		AccessKeyID:     newID("ASIA"),
		SecretAccessKey: newSecret(30),
		SessionToken:    newSecret(768), // 1,024 characters, in the order of what Lambda hands out
	}
}

func (i Identity) account() string { return strings.Split(i.ARN+"::::", ":")[4] }

// newID returns an identifier in the form of IAM's: its kind, and 16 letters and digits.
func newID(kind string) string { return kind + rand.Text()[:16] }

// newSecret returns what has to be escaped in a URL, as AWS's secrets and tokens do: +, / and =.
func newSecret(size int) string {
	random := make([]byte, size)
	rand.Read(random) // never fails
	return base64.StdEncoding.EncodeToString(random)
}
