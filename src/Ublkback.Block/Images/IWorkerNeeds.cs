namespace Ublkback.Block;

/// <summary>An image that says which workers it can use, and is told which it gets. When the image is opened.</summary>
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

    /// <summary>
    /// Says on which loop the first queue's requests will come, before there is any. So the image can work at once for
    /// a guest that is idle. Any thread.
    /// </summary>
    void UseOn(BlockLoop loop)
    {
        // Most images do nothing without a request.
    }
}
