namespace Ublkback.Block;

/// <summary>An image that follows the events of its disk.</summary>
public interface IDiskObserver
{
    /// <summary>Receives an event of the disk, on the loop of one of its queues.</summary>
    void OnEvent(DiskEvent happened);
}
