from worker.dispatcher.dispatcher import main

main()
