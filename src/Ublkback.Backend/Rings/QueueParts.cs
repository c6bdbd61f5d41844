using Ublkback.Backend.Grants;
using Ublkback.Backend.Report;
using Ublkback.Blkif;
using Ublkback.Linux.Workers;
using Ublkback.Xen;

namespace Ublkback.Backend.Rings;

/// <summary>The parts that serve one queue.</summary>
/// <param name="Worker">Serves the ring.</param>
/// <param name="Mapping">The ring's pages.</param>
/// <param name="Channel">The ring's event channel.</param>
/// <param name="Ring">Our end of the ring in these pages.</param>
/// <param name="Persistent">The pages that the frontend keeps granted; null if it keeps none.</param>
/// <param name="Statistics">The queue's figures.</param>
internal sealed record QueueParts(
    Worker Worker, IGrantMapping Mapping, IEventChannel Channel, BackRing Ring, PersistentGrants? Persistent,
    QueueStatistics Statistics);
