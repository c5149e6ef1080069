package onboard

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// backend chooses where an identity is mapped: where it can be done live, unless a place that the authenticator asks before
// has decided about the identity already.
func (s MappingState) backend(a authenticator, there bool, id Identity) (b Backend, why string, err error) {
	if !there {
		return NoBackend, "there is no DaemonSet " + authenticatorRef.fullName() + " in this cluster, and without it IAM is not known to it", nil
	}
	var order []string
	for _, mode := range a.modes {
		order = append(order, string(mode))
	}
	in := "the authenticator's backend mode is " + strings.Join(order, ",")
	var unusable []string
	b = NoBackend
	for _, mode := range a.modes {
		if reason := s.unusable(a, mode); reason != "" {
			unusable = append(unusable, reason)
			continue
		}
		caught, err := s.catches(a, mode, id)
		switch {
		case err != nil:
			return "", "", err
		case caught && len(a.modes) > 1:
			return mode, s.reason(mode, in+", of which the first that knows an identity decides, and this one knows it"), nil
		case mode != MountedFile:
			return mode, s.reason(mode, in), nil
		}
		b = mode
	}
	if len(unusable) > 0 {
		in += " (" + strings.Join(unusable, "; ") + ")"
	}
	return b, s.reason(b, in), nil
}

func (s MappingState) reason(b Backend, in string) string {
	switch b {
	case EKSConfigMap, CRD:
		return in + ": it takes this up by itself, within seconds"
	case MountedFile:
		return in + ": it reads this file, and only when it starts"
	}
	return in + ", of which none can be written"
}

// unusable says why a mode is of no use to us; empty if it is of use.
func (s MappingState) unusable(a authenticator, b Backend) string {
	switch b {
	case EKSConfigMap:
	case CRD:
		if !s.knowsMapping {
			return "the cluster does not know IAMIdentityMapping: kops update cluster puts it there"
		}
	case MountedFile:
		if !a.mounted {
			return "it is not told to read a file"
		}
	default:
		return "what it does in the mode " + string(b) + " is not known to kops-spot"
	}
	return ""
}

func (s MappingState) catches(a authenticator, b Backend, id Identity) (bool, error) {
	switch b {
	case EKSConfigMap:
		return awsAuthListing().catches(s.objects[awsAuthRef], id)
	case MountedFile:
		return fileListing(a.config, "").catches(s.objects[a.config], id)
	}
	return len(s.mappingOf(id.canonical())) > 0, nil
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// mappingRef is the object that maps an identity: the one that is there, whoever has made it, or ours.
func mappingRef(s MappingState, id Identity) ref {
	if there := s.mappingOf(id.canonical()); len(there) > 0 {
		return refOf(there[0])
	}
	r := mappingsRef
	arn := id.canonical()
	sum := sha256.Sum256([]byte(strings.ToLower(arn)))
	short := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(arn[strings.LastIndexByte(arn, '/')+1:]), "-"), "-")
	r.name = fmt.Sprintf("cast-%s-%s", short, hex.EncodeToString(sum[:4]))
	return r
}
