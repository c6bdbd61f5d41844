namespace Ublkback.Block;

/// <summary>An image that says which workers it can use. Read when the image is opened.</summary>
public interface IWorkerNeeds
{
    /// <summary>
    /// True if the queues of a disk may submit requests on several workers at the same time. Otherwise all requests
    /// come on one worker.
    /// </summary>
    bool AllowsManyWorkers => false;

    /// <summary>
    /// The component that may block a worker, named for the administrator. If set, the disk gets a worker of its own.
    /// Null if nothing blocks.
    /// </summary>
    string? NeedsOwnWorkerFor => null;
}
