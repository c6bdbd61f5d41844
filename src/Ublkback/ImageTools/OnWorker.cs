using Ublkback.Linux;

namespace Ublkback.ImageTools;

/// <summary>Runs what a command does with images on a worker, where images are used.</summary>
internal static class OnWorker
{
    /// <summary>Runs it to its end. What it throws comes out here.</summary>
    public static Task<T> RunAsync<T>(Worker worker, Func<Task<T>> action)
    {
        TaskCompletionSource<T> done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        worker.Post(async () =>
        {
            try
            {
                done.SetResult(await action());
            }
            catch (Exception failure)
            {
                done.SetException(failure);
            }
        });
        return done.Task;
    }
}
