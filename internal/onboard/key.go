package onboard

import (
	"context"
	"fmt"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/iamcloud"
)

// maxKeys is how many access keys IAM lets a user have.
const maxKeys = 2

// replacesNone is what tagRenewing says where a user's first key is made.
const replacesNone = "none"

// keyWork is what is done about a user's access keys, in this order.
type keyWork struct {
	user    string
	orphans []string // keys that a run has made which was broken off before it could store them: nobody has their secrets
	make    bool     // a new key, which is stored before anything is taken away
	retire  string   // the key that the new one takes the place of
	settle  bool     // the tag that says that a key is being made is still there
}

// keys is what is known of a user's access keys.
type keys struct {
	all     []iamcloud.Key
	stored  string // the one whose secret is in the store; empty if none of them is
	where   string // that is in another store than is wanted: which; empty otherwise
	pending string // what tagRenewing says; empty without
}

func knownKeys(w Want, s State) (k keys, err error) {
	if s.User != nil {
		k.all, k.pending = s.User.Keys, s.User.Tags[tagRenewing]
	}
	held, err := w.Store.Holds(s)
	switch {
	case err != nil:
		return k, err
	case k.has(held):
		k.stored = held
		return k, nil
	}
	if _, inFile := w.Store.(InFile); inFile && held != "" {
		return k, fmt.Errorf("%s holds the access key %s, which is none of the user %s: it is not overwritten: remove it, or choose another file",
			w.Store, held, iam.UserName(w.Ground.Cluster))
	}
	for _, other := range []KeyStore{InSecretsManager{w.Ground.Cluster}, InConsole{}} {
		if held, err := other.Holds(s); err != nil {
			return k, err
		} else if k.has(held) {
			k.stored, k.where = held, other.String()
			return k, nil
		}
	}
	return k, nil
}

func (k keys) has(id string) bool {
	for _, one := range k.all {
		if id != "" && one.ID == id {
			return true
		}
	}
	return false
}

// others are the keys but for one.
func (k keys) others(id string) (ids []string) {
	for _, one := range k.all {
		if one.ID != id {
			ids = append(ids, one.ID)
		}
	}
	return ids
}

// decideKey makes a key where there is none, keeps one whose secret is stored, and never deletes one that somebody may use,
// unless that was asked for.
func decideKey(w Want, s State) ([]step, error) {
	k, err := knownKeys(w, s)
	if err != nil {
		return nil, err
	}
	name := iam.UserName(w.Ground.Cluster)
	if s.User != nil {
		name = s.User.Name
	}
	work := keyWork{user: name, settle: k.pending != ""}
	var said []step
	if k.pending != "" {
		said = work.finish(&k)
	}
	switch {
	case work.retire != "" && !work.make: // finish has found the end of a renewal that was broken off
	case len(k.all) == 0:
		work.make = true
		said = append(said, create(kindKey, "of "+name, "its secret goes to "+w.Store.String()))
	case w.RotateKey:
		some, err := work.rotate(w, k)
		if err != nil {
			return nil, err
		}
		said = append(said, some...)
	default:
		said = append(said, kept(w, k, name)...)
	}
	if len(said) > 0 && work.changes() {
		carry(work, said)
	} else if work.settle {
		said = append(said, update(kindUser, name, "the mark of a key that was being made", iamcloud.UntagUser(name, tagRenewing)))
	}
	return said, nil
}

func (work keyWork) changes() bool { return len(work.orphans) > 0 || work.make || work.retire != "" }

// finish takes up what a run has left that was broken off while it made a key.
func (work *keyWork) finish(k *keys) (said []step) {
	if k.stored != "" && k.stored != k.pending {
		if k.has(k.pending) { // the new key is stored, and the old one was to go
			work.retire = k.pending
			said = append(said, remove(kindKey, k.pending, k.stored+" has taken its place, and an earlier run could not delete it any more"))
		}
		return said
	}
	var rest []iamcloud.Key
	for _, one := range k.all {
		if one.ID == k.pending || one.Used { // what has been used, somebody else has made
			rest = append(rest, one)
			continue
		}
		work.orphans = append(work.orphans, one.ID)
		said = append(said, remove(kindKey, one.ID, "an earlier run has made it and was broken off before it could store it: nobody has its secret"))
	}
	k.all = rest
	return said
}

func (work *keyWork) rotate(w Want, k keys) ([]step, error) {
	if len(k.all) == maxKeys {
		which := ""
		if k.stored != "" {
			which = ", of which " + k.stored + " is the one that is stored"
		}
		return nil, fmt.Errorf("user %s has two access keys, %s%s, and IAM allows no third: find out who uses the other, and delete it with "+
			"aws iam delete-access-key --user-name %s --access-key-id ID; then run this again", work.user, listed(k.others("")), which, work.user)
	}
	work.make, work.retire = true, k.all[0].ID
	return []step{
		create(kindKey, "of "+work.user, "its secret goes to "+w.Store.String()+"; once it is there and AWS accepts the key, the old one goes"),
		remove(kindKey, work.retire, "the new one takes its place; whoever uses the old one must take the new one"),
	}, nil
}

// kept says what becomes of keys that stay.
func kept(w Want, k keys, user string) (said []step) {
	renew := "--rotate-key makes a new one, stores it, and then deletes this one"
	for _, one := range k.all {
		switch {
		case one.ID == k.stored && !one.Active:
			said = append(said, leave(kindKey, one.ID, "somebody has deactivated it: aws iam update-access-key --user-name "+user+
				" --access-key-id "+one.ID+" --status Active has it accepted again, and "+renew))
		case one.ID == k.stored && k.where != "":
			said = append(said, leave(kindKey, one.ID, "its secret is in "+k.where+" and not in "+w.Store.String()+": "+renew))
		case one.ID == k.stored:
			said = append(said, keep(kindKey, one.ID, "its secret is in "+w.Store.String()))
		case len(k.all) == maxKeys && k.stored != "":
			said = append(said, leave(kindKey, one.ID, "it is not ours to delete: if nobody uses it, aws iam delete-access-key --user-name "+user+" --access-key-id "+one.ID))
		case len(k.all) == maxKeys:
			said = append(said, leave(kindKey, one.ID, "its secret is in no store that we know, and IAM allows no third key: find out which of the two nobody uses, delete it with "+
				"aws iam delete-access-key --user-name "+user+" --access-key-id ID, and then run this with --rotate-key"))
		default:
			said = append(said, leave(kindKey, one.ID, "its secret is in no store that we know: if you have it, all is well; if not, "+renew))
		}
	}
	return said
}

// carry has the first of the steps that change something do all of the work.
func carry(work keyWork, said []step) {
	for i := range said {
		if said[i].Changes() {
			said[i].part = func(ctx context.Context, r *Run) error { return work.do(ctx, r) }
			for j := i + 1; j < len(said); j++ {
				said[j].part = func(context.Context, *Run) error { return nil }
			}
			return
		}
	}
}
