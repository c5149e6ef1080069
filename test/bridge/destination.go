package bridge

import (
	"errors"

	"github.com/castai/kops-spot/test/lambdalocal"
)

// destination writes the records of a function's asynchronous invocations into the queue that moto holds for them, and
// hands them to whom the options name. An error shows in the function's log.
func (f *functions) destination(queueARN string, also lambdalocal.Destination) lambdalocal.Destination {
	if queueARN == "" {
		return also
	}
	return func(r lambdalocal.Record) error {
		err := f.sendRecord(queueARN, r)
		if also != nil {
			err = errors.Join(err, also(r))
		}
		return err
	}
}

func (f *functions) sendRecord(queueARN string, r lambdalocal.Record) error {
	q, err := f.moto.queue(f.lifetime, queueARN)
	if err != nil {
		return err
	}
	return q.send(f.lifetime, encode(r), "", nil)
}
